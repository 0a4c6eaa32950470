/** What the worker has answered last. */

import { type Range, rangeOf } from "./colours";
import type { View } from "./state";

export class Results {
  scores: (Float32Array | null)[] = [];
  probability = false;
  top: Int32Array = new Int32Array(0);
  classes: Uint8Array[] | null = null;
  change: Float32Array | null = null;
  readonly #ranges = new Map<Float32Array, Range>();

  /** Return the values that a view shows, if there are any. */
  values(view: View, layer: number): Float32Array | null {
    if (view === "change") return this.change;
    return view === "similarity" ? (this.scores[layer] ?? null) : null;
  }

  /** Return the ends of the scale: the same for both layers, so that their colours compare. */
  range(view: View): Range | null {
    const all = view === "change" ? [this.change] : view === "similarity" ? this.scores : [];
    const ranges = all.flatMap((values) => {
      if (!values) return [];
      const known = this.#ranges.get(values) ?? rangeOf(values);
      this.#ranges.set(values, known);
      return [known];
    });
    if (!ranges.length) return null;
    return [Math.min(...ranges.map(([low]) => low)), Math.max(...ranges.map(([, high]) => high))];
  }

  setScores(scores: (Float32Array | null)[], probability: boolean, top: Int32Array): void {
    for (const old of this.scores) if (old) this.#ranges.delete(old);
    Object.assign(this, { scores, probability, top });
  }
}
