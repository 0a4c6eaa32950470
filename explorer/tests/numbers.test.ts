import assert from "node:assert/strict";
import { test } from "node:test";
import { keptNames } from "../src/classnames";
import { makeKernel, padded } from "../src/kernel";
import module from "../src/kernel.wat";
import { classesOf } from "../src/kmeans";
import { logisticRegression, PENALTY_C } from "../src/query";
import { best } from "../src/top";
import { Vectors } from "../src/vectors";

/** Numbers that look random and are the same each time. */
function numbers(count: number, from: number, to: number): number[] {
  let seed = 7;
  return Array.from({ length: count }, () => {
    seed = (seed * 16807) % 2147483647;
    return from + ((to - from) * seed) / 2147483647;
  });
}

for (const dimensions of [1, 15, 16, 17, 192, 2048]) {
  test(`both kernels give the same bits for ${dimensions} dimensions`, () => {
    const count = 37;
    const results = [false, true].map((plain) => {
      const kernel = makeKernel(module, 300_000, plain);
      const rows = numbers(count * dimensions, -127.4, 127.4).map(Math.round);
      new Int8Array(kernel.buffer).set(rows.fill(0, 0, dimensions));
      const mask = 200_000;
      new Int16Array(kernel.buffer, mask, dimensions).fill(-1);
      const query = mask + 2 * padded(dimensions);
      new Int16Array(kernel.buffer, query, dimensions).set(numbers(dimensions, -8000, 8000));
      kernel.inverse_norms(0, count, dimensions, mask, query + 8192);
      kernel.similarities(0, count, dimensions, query, query + 8192, 1.37e-5, query + 16384);
      assert.equal(kernel.name, plain ? "JavaScript" : "WebAssembly SIMD");
      return [8192, 16384].map((at) => [...new Float32Array(kernel.buffer, query + at, count)]);
    });
    assert.deepEqual(results[0], results[1]);
    assert.equal(results[0][0][0], 0);
    assert(results[0].flat().every(Number.isFinite));
  });
}

test("logistic regression is where its gradient is zero", () => {
  const samples = Array.from({ length: 9 }, (_, i) =>
    Float64Array.from(numbers(5 * (i + 1), -1, 1).slice(-5)),
  );
  const { weights, bias } = logisticRegression(samples.slice(0, 4), samples.slice(4));
  const errors = samples.map((sample, i) => {
    const score = sample.reduce((sum, v, d) => sum + v * weights[d], bias ?? 0);
    return 1 / (1 + Math.exp(-score)) - (i < 4 ? 1 : 0);
  });
  assert(Math.abs(errors.reduce((a, b) => a + b)) < 1e-8);
  weights.forEach((w, d) => {
    const gradient = w + PENALTY_C * errors.reduce((sum, e, i) => sum + e * samples[i][d], 0);
    assert(Math.abs(gradient) < 1e-8);
  });
});

test("the best are those of a sort, whatever the values", () => {
  for (const values of [numbers(5000, -1, 1), numbers(5000, 0.99, 1), new Array(5000).fill(0)]) {
    const scores = Float32Array.from(values);
    const order = [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b);
    assert.deepEqual([...best(scores, 50)], order.slice(0, 50));
    assert.deepEqual([...best(scores, 50, new Set(order.slice(0, 3)))], order.slice(3, 53));
  }
  assert.deepEqual([...best(Float32Array.of(0.2, 0.4), 10)], [1, 0]);
});

test("classes keep names where most vectors agree, in both directions", () => {
  const old = {
    classes: [Uint8Array.of(0, 0, 0, 0, 1, 1, 1), Uint8Array.of(2, 2, 2)],
    count: 3,
    names: ["a", "b"],
  };
  const names = (...parts: number[][]) =>
    keptNames(
      old,
      parts.map((part) => Uint8Array.from(part)),
      4,
    );
  // Class 0 is split in 1 and 3, class 1 is 0 now, and the third has no name.
  assert.deepEqual(names([1, 1, 1, 3, 0, 0, 0], [2, 2, 2]), ["b", "a", "", ""]);
  // Most of 0 is in 1, but so is all of 1: of the two, only the larger share counts.
  assert.deepEqual(names([1, 1, 1, 1, 1, 1, 1], [2, 2, 2]), ["", "a", "", ""]);
  assert.deepEqual(names([2, 2, 2, 2, 2, 2, 2], [2, 2, 2])[2], "a");
  assert.deepEqual(keptNames({ ...old, names: [] }, old.classes, 3), []);
});

test("k-means finds directions that are far apart", () => {
  const vectors = new Vectors(module, [300, 20], 8, false);
  for (const block of vectors.layers) {
    const noise = numbers(block.count * 8, -20, 20);
    const rows = noise.map(
      (v, at) => Math.round(v) + (at % 8 === Math.floor(at / 8) % 3 ? 100 : 0),
    );
    vectors.bytes(block).set(new Uint8Array(Int8Array.from(rows)));
    vectors.measure(block);
  }
  const [first, second] = classesOf(vectors, 3);
  assert.equal(new Set(first.slice(0, 3)).size, 3);
  assert(first.every((c, i) => c === first[i % 3]));
  assert(second.every((c, i) => c === first[i % 3]));
});
