/** How the values that the map shows are spread. */

import { css } from "../colours";

export function drawHistogram(
  canvas: HTMLCanvasElement,
  values: Float32Array,
  low: number,
  high: number,
  ramp: Uint32Array,
): void {
  const context = canvas.getContext("2d");
  if (!context) return;
  const { width, height } = canvas;
  const counts = new Uint32Array(width / 4);
  const factor = (counts.length - 0.001) / (high - low);
  for (let i = 0; i < values.length; i++) {
    const v = values[i];
    if (v >= low && v <= high) counts[((v - low) * factor) | 0]++;
  }
  const most = Math.sqrt(counts.reduce((a, b) => Math.max(a, b), 1));
  context.clearRect(0, 0, width, height);
  counts.forEach((count, i) => {
    // Square roots, so that the few most similar ones are seen.
    const size = (Math.sqrt(count) / most) * height;
    context.fillStyle = css(ramp[Math.floor((i / counts.length) * 255)]);
    context.fillRect(i * 4, height - size, 3, size);
  });
}
