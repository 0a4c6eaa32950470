/** What the person has chosen: everything that the permalink holds. */

import type { Site } from "./format";
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

/** Return the views that a site has. */
export function viewsOf(site: Site): View[] {
  const first = site.layers[0];
  const map = site.kind === "map";
  const has: [View, boolean][] = [
    ["image", map && first.image !== null],
    ["pca", !map || first.pca !== null],
    ["similarity", true],
    ["classes", true],
    ["change", map && site.layers.length > 1],
  ];
  return has.filter(([, there]) => there).map(([name]) => name);
}

type Listener = (changed: Set<keyof State>) => void;

export class Store {
  #state: State;
  /** The view from before the search. */
  #before: View | null = null;
  readonly #listeners: Listener[] = [];

  /** `views` are those of the site. */
  constructor(
    state: State,
    readonly views: View[],
  ) {
    this.#state = this.#valid(state);
  }

  #valid(state: State): State {
    return this.views.includes(state.view) ? state : { ...state, view: this.views[0] };
  }

  /** Take over the state of a link. */
  replace(state: State): void {
    this.set(this.#valid(state));
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

  /**
   * Add a click, change its sign, or take it away where it was made before with this one. A new
   * search has clicks and a threshold of its own.
   */
  click(click: Click, sign: "new" | "positive" | "negative"): void {
    const same = (other: Click): boolean =>
      other.layer === click.layer && other.index === click.index;
    const list = sign === "negative" ? this.#state.negatives : this.#state.positives;
    const had = list.some(same);
    const others = (clicks: Click[]): Click[] =>
      sign === "new" ? [] : clicks.filter((c) => !same(c));
    const positives = others(this.#state.positives);
    const negatives = others(this.#state.negatives);
    if (sign === "new" || !had) (sign === "negative" ? negatives : positives).push(click);
    if (!positives.length && !negatives.length) {
      this.clear();
      return;
    }
    if (this.#state.view !== "similarity") this.#before = this.#state.view;
    this.set({
      positives,
      negatives,
      view: "similarity",
      ...(sign === "new" ? { threshold: null } : {}),
    });
  }

  /** Take a click away. */
  remove(click: Click): void {
    const others = (clicks: Click[]): Click[] => clicks.filter((other) => other !== click);
    const positives = others(this.#state.positives);
    const negatives = others(this.#state.negatives);
    if (!positives.length && !negatives.length) this.clear();
    else this.set({ positives, negatives });
  }

  /** End the search, and go back to the view from before it. */
  clear(): void {
    const { view } = this.#state;
    this.set({
      positives: [],
      negatives: [],
      threshold: null,
      view: view === "similarity" ? (this.#before ?? this.views[0]) : view,
    });
  }
}
