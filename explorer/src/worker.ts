/** The worker: holds all vectors and answers what takes long. */

import { type Site, SiteError } from "./format";
import module from "./kernel.wat";
import { classesOf } from "./kmeans";
import { readInto } from "./loading";
import { makeQuery } from "./query";
import { best } from "./top";
import { changes, Vectors } from "./vectors";

export interface Click {
  layer: number;
  index: number;
}

export interface Calls {
  load: { ask: { site: Site; base: string; plain: boolean }; answer: Loaded };
  search: { ask: Search; answer: Found };
  top: { ask: TopRequest; answer: Int32Array<ArrayBuffer> };
  classes: { ask: { k: number }; answer: Uint8Array[] };
  change: { ask: null; answer: Float32Array };
}

export interface Loaded {
  kernel: string;
  cells: (Uint32Array | null)[];
}

export interface Search {
  positives: Click[];
  negatives: Click[];
  layers: number[];
  top: TopRequest;
}

export interface TopRequest {
  layer: number;
  k: number;
  spacing: number;
  left_out: number[];
}

export interface Found {
  scores: (Float32Array | null)[];
  probability: boolean;
  /** What the comparison with all vectors has taken. */
  milliseconds: number;
  top: Int32Array<ArrayBuffer>;
}

export interface Message {
  id: number;
  call: keyof Calls;
  ask: Calls[keyof Calls]["ask"];
}

let vectors: Vectors;
const cells: (Uint32Array | null)[] = [];
let columns = 1;
let latest: (Float32Array | null)[] = [];

async function load({ site, base, plain }: Calls["load"]["ask"]): Promise<Loaded> {
  const counts = site.layers.map((layer) => layer.count);
  vectors = new Vectors(module, counts, site.dimensions, plain);
  columns = site.layers[0].grid?.columns ?? 1;
  const total = counts.reduce((sum, count) => sum + count * site.dimensions, 0);
  let before = 0;
  let told = 0;
  for (const [i, layer] of site.layers.entries()) {
    if (layer.cells) {
      const flat = new Uint32Array(layer.count);
      await readInto(new URL(layer.cells, base), new Uint8Array(flat.buffer));
      cells[i] = flat;
    } else {
      cells[i] = null;
    }
    const target = vectors.bytes(vectors.layers[i]);
    await readInto(new URL(layer.vectors, base), target, (bytes) => {
      if (performance.now() - told > 100) {
        told = performance.now();
        postMessage({ progress: (before + bytes) / total, total });
      }
    });
    before += target.length;
    vectors.measure(vectors.layers[i]);
  }
  return { kernel: vectors.kernel.name, cells };
}

function search({ positives, negatives, layers, top }: Search): Found {
  const unit = (click: Click): Float64Array =>
    vectors.unit(vectors.layers[click.layer], click.index);
  const query =
    positives.length === 1 && !negatives.length
      ? { weights: exact(positives[0]), bias: null }
      : makeQuery(positives.map(unit), negatives.map(unit));
  const began = performance.now();
  latest = vectors.layers.map((block, i) =>
    layers.includes(i) ? vectors.scores(block, query).slice() : null,
  );
  const milliseconds = performance.now() - began;
  return { scores: latest, probability: query.bias !== null, top: topOf(top), milliseconds };
}

/** The row as it is: whole numbers stay whole. */
function exact(click: Click): Float64Array {
  return Float64Array.from(vectors.row(vectors.layers[click.layer], click.index));
}

function topOf({ layer, k, spacing, left_out }: TopRequest): Int32Array<ArrayBuffer> {
  const scores = latest[layer];
  if (!scores) return new Int32Array(0);
  return best(scores, k, new Set(left_out), { spacing, columns, cells: cells[layer] });
}

const answers: { [C in keyof Calls]: (ask: Calls[C]["ask"]) => unknown } = {
  load,
  search,
  top: topOf,
  classes: ({ k }) => classesOf(vectors, k),
  change: () => changes(vectors, cells),
};

addEventListener("message", async (event: MessageEvent<Message>) => {
  const { id, call, ask } = event.data;
  try {
    const answer = await answers[call](ask as never);
    postMessage({ id, answer });
  } catch (error) {
    const text = error instanceof SiteError ? error.message : `the search failed: ${String(error)}`;
    postMessage({ id, problem: text });
  }
});
