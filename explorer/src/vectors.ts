/** The int8 vectors of all layers in the memory of one kernel. */

import { type Kernel, makeKernel, padded } from "./kernel";
import type { Query } from "./query";

export interface Block {
  rows: number;
  inverse: number;
  out: number;
  count: number;
}

/** Rows that are copied side by side for k-means. */
export const SAMPLE = 20_000;

// Steps of 16 bytes may read beyond the last row.
const aligned = (bytes: number): number => Math.ceil((bytes + 16) / 16) * 16;

export class Vectors {
  readonly kernel: Kernel;
  readonly layers: Block[];
  readonly sample: Block;
  readonly dimensions: number;
  readonly #query: number;
  readonly #mask: number;

  constructor(
    module: Uint8Array<ArrayBuffer>,
    counts: number[],
    dimensions: number,
    plain: boolean,
  ) {
    let end = 0;
    const taken = (bytes: number): number => {
      const start = end;
      end += aligned(bytes);
      return start;
    };
    const block = (count: number): Block => ({
      rows: taken(count * dimensions),
      inverse: taken(4 * count),
      out: taken(4 * count),
      count,
    });
    this.dimensions = dimensions;
    this.#query = taken(2 * padded(dimensions));
    this.#mask = taken(2 * padded(dimensions));
    this.layers = counts.map(block);
    this.sample = block(
      Math.min(
        SAMPLE,
        counts.reduce((a, b) => a + b, 0),
      ),
    );
    this.kernel = makeKernel(module, end, plain);
    new Int16Array(this.kernel.buffer, this.#mask, dimensions).fill(-1);
  }

  /** Return the bytes of a block's rows, to be filled. */
  bytes(block: Block): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.kernel.buffer, block.rows, block.count * this.dimensions);
  }

  row(block: Block, i: number): Int8Array {
    return new Int8Array(this.kernel.buffer, block.rows + i * this.dimensions, this.dimensions);
  }

  inverse(block: Block): Float32Array {
    return new Float32Array(this.kernel.buffer, block.inverse, block.count);
  }

  /** Measure the rows of a block, once they are there. */
  measure(block: Block): void {
    this.kernel.inverse_norms(block.rows, block.count, this.dimensions, this.#mask, block.inverse);
  }

  unit(block: Block, i: number): Float64Array {
    const inverse = this.inverse(block)[i];
    return Float64Array.from(this.row(block, i), (v) => v * inverse);
  }

  /** Return the score of each row of a block; the memory is overwritten by the next call. */
  scores(block: Block, query: Query): Float32Array {
    const { dimensions, kernel } = this;
    const q = new Int16Array(kernel.buffer, this.#query, dimensions);
    const largest = query.weights.reduce((most, w) => Math.max(most, Math.abs(w)), 0);
    // Sums of 127 * q over all dimensions stay within int32.
    const most = Math.min(32767, Math.floor((2 ** 31 - 1) / (127 * dimensions)));
    // A whole factor keeps the int8 values of one click exact.
    const fit = largest && most / largest;
    const factor = fit > 1 ? Math.floor(fit) : fit;
    let square = 0;
    for (let d = 0; d < dimensions; d++) {
      q[d] = Math.round(query.weights[d] * factor);
      square += q[d] ** 2;
    }
    const scale = query.bias === null ? square && 1 / Math.sqrt(square) : factor && 1 / factor;
    kernel.similarities(
      block.rows,
      block.count,
      dimensions,
      this.#query,
      block.inverse,
      scale,
      block.out,
    );
    const scores = new Float32Array(kernel.buffer, block.out, block.count);
    if (query.bias !== null) {
      for (let i = 0; i < scores.length; i++)
        scores[i] = 1 / (1 + Math.exp(-scores[i] - query.bias));
    }
    return scores;
  }
}

/** Return 1 - cosine of the rows of two layers at equal cells, NaN where only the first has one. */
export function changes(vectors: Vectors, cells: (Uint32Array | null)[]): Float32Array {
  const [a, b] = vectors.layers;
  const [inverseA, inverseB] = [vectors.inverse(a), vectors.inverse(b)];
  const d = vectors.dimensions;
  const left = new Int8Array(vectors.kernel.buffer, a.rows, a.count * d);
  const right = new Int8Array(vectors.kernel.buffer, b.rows, b.count * d);
  const result = new Float32Array(a.count).fill(Number.NaN);
  for (let i = 0, j = 0; i < a.count; i++) {
    const cell = cells[0] ? cells[0][i] : i;
    while (j < b.count && (cells[1] ? cells[1][j] : j) < cell) j++;
    if (j === b.count || (cells[1] ? cells[1][j] : j) !== cell) continue;
    let sum = 0;
    for (let k = 0, p = i * d, q = j * d; k < d; k++) sum += left[p + k] * right[q + k];
    result[i] = 1 - sum * inverseA[i] * inverseB[j];
  }
  return result;
}
