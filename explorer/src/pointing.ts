/** Mouse, touch and keyboard on the map. */

import type { MapBrowserEvent } from "ol";
import { byId } from "./dom";
import type { Explorer } from "./explorer";
import type { Point } from "./ground";
import { readingOf } from "./reading";
import type { Readout } from "./readout";
import type { Click } from "./worker";

type Sign = "new" | "positive" | "negative";

const REACH_PX = 12;
const ARROWS: Record<string, Point> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, 1],
  ArrowDown: [0, -1],
};

export class Pointing {
  readonly #explorer: Explorer;
  #cursor: Click | null = null;

  constructor(explorer: Explorer, readout: Readout) {
    this.#explorer = explorer;
    const { map } = explorer.view;
    map.on("click", (event) => this.#click(event));
    map.on("pointermove", (event) => readout.show(event.dragging ? null : this.#at(event)));
    byId("map").addEventListener("pointerleave", () => readout.show(null));
    map.on("moveend", () => explorer.store.set({ at: explorer.view.at }));
    const target = byId("map");
    target.addEventListener("keydown", (event) => this.#key(event));
    target.addEventListener("blur", () => explorer.setCursor(null));
    addEventListener("keydown", (event) => this.#escape(event));
    byId("zoom-in").onclick = () => explorer.view.zoom(1);
    byId("zoom-out").onclick = () => explorer.view.zoom(-1);
    byId("zoom-all").onclick = () => explorer.view.whole();
  }

  /** Go to a vector and put the cursor there. */
  go(click: Click): void {
    this.#explorer.view.fly(this.#explorer.ground.point(click.layer, click.index));
    this.#place(click);
  }

  #layerAt(pixel: number[]): number {
    const { swiping, state, layer, view } = this.#explorer;
    const [width] = view.map.getSize() ?? [1];
    return swiping && state.swipe !== null ? (pixel[0] > state.swipe * width ? 1 : 0) : layer;
  }

  #at(event: MapBrowserEvent): Click | null {
    const { ground, view, loaded } = this.#explorer;
    const layer = this.#layerAt(event.pixel);
    const reach = REACH_PX * (view.map.getView().getResolution() ?? 1);
    const index = loaded ? ground.at(layer, event.coordinate as Point, reach) : -1;
    return index < 0 ? null : { layer, index };
  }

  #click(event: MapBrowserEvent): void {
    const click = this.#at(event);
    const { reports, loaded } = this.#explorer;
    if (!click) {
      reports.status(
        loaded ? "Nothing here has an embedding." : "The embeddings are not here yet.",
      );
      return;
    }
    const keys = event.originalEvent as PointerEvent;
    this.#choose(
      click,
      keys.shiftKey ? "negative" : keys.ctrlKey || keys.metaKey ? "positive" : null,
    );
  }

  #choose(click: Click, sign: Sign | null): void {
    const mode = document.querySelector<HTMLInputElement>("input[name=mode]:checked")?.value;
    this.#explorer.store.click(click, sign ?? (mode as Sign));
    this.#cursor = click;
    const { positives, negatives } = this.#explorer.state;
    if (!positives.length && !negatives.length) return;
    const name = this.#explorer.ground.name(click.layer, click.index);
    this.#explorer.reports.status(`Searching from ${name}.`);
  }

  #place(click: Click): void {
    this.#cursor = click;
    this.#explorer.setCursor(click);
    const [name, value] = readingOf(this.#explorer, click);
    this.#explorer.reports.status(value ? `${name}: ${value}` : name);
  }

  /** Begin in the middle of the map where nothing was clicked yet. */
  #start(): Click | null {
    const { ground, view, layer, loaded, site } = this.#explorer;
    if (!loaded) return null;
    const [x, y] = view.at;
    let index = ground.at(layer, [x, y], Number.POSITIVE_INFINITY);
    if (index < 0) index = Math.floor(site.layers[layer].count / 2);
    return { layer, index };
  }

  #key(event: KeyboardEvent): void {
    const { ground, view } = this.#explorer;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.altKey || ((event.ctrlKey || event.metaKey) && key !== "Enter")) return;
    const arrow = ARROWS[key];
    const signs: Record<string, Sign | null> = {
      Enter: event.shiftKey ? "negative" : event.ctrlKey ? "positive" : null,
      p: "positive",
      n: "negative",
    };
    const sign = signs[key];
    if (arrow) {
      let click = this.#cursor ?? this.#start();
      if (!click) return;
      if (this.#cursor) {
        for (let i = 0; i < (event.shiftKey ? 10 : 1); i++) {
          click = { ...click, index: ground.beside(click.layer, click.index, ...arrow) };
        }
      }
      this.#place(click);
      view.reveal(ground.point(click.layer, click.index));
    } else if (sign !== undefined) {
      const click = this.#cursor ?? this.#start();
      if (!click) return;
      this.#place(click);
      this.#choose(click, sign);
    } else if (key === "+" || key === "=") view.zoom(1);
    else if (key === "-") view.zoom(-1);
    else if (key === "0") view.whole();
    else return;
    event.preventDefault();
  }

  /** Clear the search, wherever the focus is, but not while a name is written or help is open. */
  #escape(event: KeyboardEvent): void {
    const writing = event.target instanceof HTMLInputElement && event.target.type === "text";
    if (event.key !== "Escape" || writing || document.querySelector("dialog[open]")) return;
    this.#explorer.store.clear();
    this.#explorer.setCursor(null);
  }
}
