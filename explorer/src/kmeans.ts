/** Spherical k-means: classes of directions, the same ones each time. */

import type { Query } from "./query";
import type { Vectors } from "./vectors";

const ITERATIONS = 30;

/** Mulberry32: a small generator of numbers from 0 to 1 with a seed. */
function random(seed: number): () => number {
  let a = seed;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Return the class (0, 1, ...) of each vector of each layer; class 0 is the largest. */
export function classesOf(vectors: Vectors, k: number): Uint8Array[] {
  const { layers, sample, dimensions } = vectors;
  const total = layers.reduce((sum, block) => sum + block.count, 0);
  const rows = vectors.bytes(sample);
  let [layer, before] = [0, 0];
  for (let s = 0; s < sample.count; s++) {
    const i = Math.floor((s * total) / sample.count);
    while (i - before >= layers[layer].count) before += layers[layer++].count;
    rows.set(new Uint8Array(vectors.row(layers[layer], i - before)), s * dimensions);
  }
  vectors.measure(sample);
  const signed = new Int8Array(rows.buffer, rows.byteOffset, rows.length);
  const inverse = vectors.inverse(sample);
  let centres = seeds(vectors, k);
  let previous = new Uint8Array(0);
  for (let step = 0; step < ITERATIONS; step++) {
    const classes = assigned(vectors, sample, centres);
    if (previous.length && classes.every((c, i) => c === previous[i])) break;
    previous = classes;
    const sums = centres.map(() => new Float64Array(dimensions));
    for (let i = 0; i < sample.count; i++) {
      const sum = sums[classes[i]];
      for (let d = 0, at = i * dimensions; d < dimensions; d++)
        sum[d] += signed[at + d] * inverse[i];
    }
    centres = sums.map((sum, c) =>
      sum.some((v) => v) ? { weights: sum, bias: null } : centres[c],
    );
  }
  const found = layers.map((block) => assigned(vectors, block, centres));
  const counts = countsOf(found, k);
  const order = [...counts.keys()].sort((a, b) => counts[b] - counts[a] || a - b);
  const rank = Uint8Array.from({ length: k }, (_, c) => order.indexOf(c));
  for (const classes of found) {
    for (let i = 0; i < classes.length; i++) classes[i] = rank[classes[i]];
  }
  return found;
}

export function countsOf(classes: Uint8Array[], k: number): number[] {
  const counts: number[] = new Array(k).fill(0);
  for (const part of classes) for (const c of part) counts[c]++;
  return counts;
}

/** First centres far from one another (k-means++). */
function seeds(vectors: Vectors, k: number): Query[] {
  const { sample } = vectors;
  const draw = random(20211227);
  let chosen = Math.floor(draw() * sample.count);
  const centres: Query[] = [];
  const distance = new Float32Array(sample.count).fill(Number.POSITIVE_INFINITY);
  for (;;) {
    const centre = { weights: vectors.unit(sample, chosen), bias: null };
    centres.push(centre);
    if (centres.length === k) return centres;
    const scores = vectors.scores(sample, centre);
    let sum = 0;
    for (let i = 0; i < sample.count; i++) {
      distance[i] = Math.min(distance[i], Math.max(0, 1 - scores[i]));
      sum += distance[i];
    }
    let left = draw() * sum;
    for (chosen = 0; chosen < sample.count - 1 && left > distance[chosen]; chosen++)
      left -= distance[chosen];
  }
}

function assigned(
  vectors: Vectors,
  block: Vectors["sample"],
  centres: Query[],
): Uint8Array<ArrayBuffer> {
  const classes = new Uint8Array(block.count);
  const best = new Float32Array(block.count).fill(-2);
  centres.forEach((centre, c) => {
    const scores = vectors.scores(block, centre);
    for (let i = 0; i < block.count; i++) {
      if (scores[i] > best[i]) {
        best[i] = scores[i];
        classes[i] = c;
      }
    }
  });
  return classes;
}
