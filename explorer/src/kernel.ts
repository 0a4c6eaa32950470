/** The inner loops: WebAssembly with SIMD, or the same numbers in plain JavaScript. */

import { SiteError } from "./format";

export interface Kernel {
  name: "WebAssembly SIMD" | "JavaScript";
  buffer: ArrayBuffer;
  similarities(
    rows: number,
    count: number,
    dimensions: number,
    query: number,
    inverse: number,
    scale: number,
    out: number,
  ): void;
  inverse_norms(rows: number, count: number, dimensions: number, mask: number, out: number): void;
}

/** Length of a query in memory: a multiple of 16 values. */
export const padded = (dimensions: number): number => (dimensions + 15) & -16;

/** Return the fastest kernel that this browser has, with `bytes` of memory. */
export function makeKernel(module: Uint8Array<ArrayBuffer>, bytes: number, plain: boolean): Kernel {
  try {
    if (!plain && typeof WebAssembly === "object" && WebAssembly.validate(module)) {
      const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / 65536), maximum: 65536 });
      const instance = new WebAssembly.Instance(new WebAssembly.Module(module), {
        env: { memory },
      });
      const { similarities, inverse_norms } = instance.exports as unknown as Kernel;
      return { name: "WebAssembly SIMD", buffer: memory.buffer, similarities, inverse_norms };
    }
    return plainKernel(new ArrayBuffer(bytes));
  } catch {
    throw new SiteError(
      `this browser does not give the page ${Math.ceil(bytes / 2 ** 20)} MB of memory for the vectors. ` +
        "Close other tabs, or make the site of a smaller area or with fewer dimensions (--pca).",
    );
  }
}

export function plainKernel(buffer: ArrayBuffer): Kernel {
  const { fround, sqrt } = Math;
  return {
    name: "JavaScript",
    buffer,
    similarities(rows, count, dimensions, query, inverse, scale, out) {
      const x = new Int8Array(buffer, rows, count * dimensions);
      const q = new Int16Array(buffer, query, dimensions);
      const inverses = new Float32Array(buffer, inverse, count);
      const result = new Float32Array(buffer, out, count);
      const factor = fround(scale);
      for (let i = 0, at = 0; i < count; i++) {
        let sum = 0;
        for (let d = 0; d < dimensions; d++, at++) sum += x[at] * q[d];
        result[i] = fround(fround(fround(sum) * inverses[i]) * factor);
      }
    },
    inverse_norms(rows, count, dimensions, _mask, out) {
      const x = new Int8Array(buffer, rows, count * dimensions);
      const result = new Float32Array(buffer, out, count);
      for (let i = 0, at = 0; i < count; i++) {
        let sum = 0;
        for (let d = 0; d < dimensions; d++, at++) sum += x[at] * x[at];
        result[i] = sum && fround(1 / fround(sqrt(fround(sum))));
      }
    },
  };
}
