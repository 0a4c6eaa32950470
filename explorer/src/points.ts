/** Many places as dots, written as pixels: 100,000 of them in one picture. */

import type { Affine } from "./format";

/** Write a dot for each place; places are drawn in the given order, later ones on top. */
export function drawPoints(
  context: CanvasRenderingContext2D,
  points: Float64Array,
  colours: Uint32Array,
  order: Uint32Array | null,
  [a, b, c, d, e, f]: Affine,
  radius: number,
): void {
  const { width, height } = context.canvas;
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const reach = Math.ceil(radius);
  // Rows of a disc with a dark edge, so that dots that lie together stay apart.
  const disc: number[] = [];
  const dark: boolean[] = [];
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      const distance = Math.hypot(dx, dy);
      if (distance > radius) continue;
      disc.push(dy * width + dx);
      dark.push(radius > 3 && distance > radius - 1);
    }
  }
  const count = points.length / 2;
  for (let n = 0; n < count; n++) {
    const i = order ? order[n] : n;
    const colour = colours[i];
    if (!colour) continue;
    const u = points[2 * i];
    const v = points[2 * i + 1];
    const x = Math.round(a * u + b * v + c);
    const y = Math.round(d * u + e * v + f);
    if (!(x >= reach && y >= reach && x < width - reach && y < height - reach)) continue;
    const edge = (((colour >>> 1) & 0x7f7f7f) | 0xff000000) >>> 0;
    for (let p = 0; p < disc.length; p++) {
      pixels[y * width + x + disc[p]] = dark[p] ? edge : colour;
    }
  }
  context.putImageData(image, 0, 0);
}

/** Return the places by ascending value, coarsely, so that the largest are drawn last. */
export function ascending(values: Float32Array): Uint32Array {
  const buckets = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) {
    buckets[i] = Math.max(0, Math.min(1023, (values[i] + 1) * 512));
  }
  const starts = new Uint32Array(1025);
  for (const bucket of buckets) starts[bucket + 1]++;
  for (let b = 0; b < 1024; b++) starts[b + 1] += starts[b];
  const order = new Uint32Array(values.length);
  for (let i = 0; i < buckets.length; i++) order[starts[buckets[i]]++] = i;
  return order;
}
