/** What the person has chosen: everything that the permalink holds. */

import type { Click } from "./worker";

export type View = "image" | "pca" | "similarity" | "classes" | "change";

export interface State {
  view: View;
  layer: number;
  /** Share of the width where the second layer begins, or null without a swipe. */
  swipe: number | null;
  opacity: number;
  positives: Click[];
  negatives: Click[];
  threshold: number | null;
  k: number;
  spacing: number;
  /** Number of classes, 0 before the first grouping. */
  classes: number;
  names: string[];
  /** Centre and resolution of the map view, null for the whole area. */
  at: [number, number, number] | null;
}

export const INITIAL: State = {
  view: "image",
  layer: 0,
  swipe: null,
  opacity: 0.8,
  positives: [],
  negatives: [],
  threshold: null,
  k: 20,
  spacing: 2,
  classes: 0,
  names: [],
  at: null,
};

type Listener = (changed: Set<keyof State>) => void;

export class Store {
  #state: State;
  readonly #listeners: Listener[] = [];

  constructor(state: State) {
    this.#state = state;
  }

  get state(): Readonly<State> {
    return this.#state;
  }

  listen(listener: Listener): void {
    this.#listeners.push(listener);
  }

  set(values: Partial<State>): void {
    const keys = Object.keys(values) as (keyof State)[];
    const changed = new Set(
      keys.filter((key) => JSON.stringify(values[key]) !== JSON.stringify(this.#state[key])),
    );
    if (!changed.size) return;
    this.#state = { ...this.#state, ...values };
    for (const listener of this.#listeners) listener(changed);
  }

  /** Add a click, or take it away where it was made before; alone, it begins a new search. */
  click(click: Click, sign: "new" | "positive" | "negative"): void {
    const same = (other: Click): boolean =>
      other.layer === click.layer && other.index === click.index;
    const had = [...this.#state.positives, ...this.#state.negatives].some(same);
    const others = (clicks: Click[]): Click[] =>
      sign === "new" ? [] : clicks.filter((c) => !same(c));
    const positives = others(this.#state.positives);
    const negatives = others(this.#state.negatives);
    if (sign === "new" || !had) (sign === "negative" ? negatives : positives).push(click);
    this.set({ positives, negatives, view: "similarity" });
  }
}
