/** The search: the places that were clicked, the threshold, and the most similar ones. */

import { byId, definitions, element, isolated, setSlider, slider } from "../dom";
import type { Explorer } from "../explorer";
import { shownValues } from "../exports";
import { thousands } from "../format";
import { GridGround, shown } from "../ground";
import { rampOf } from "../overlay";
import { cutOut } from "../thumbnails";
import type { Click } from "../worker";
import { drawHistogram } from "./histogram";

export class SearchPanel {
  readonly #explorer: Explorer;
  readonly #go: (click: Click) => void;
  #hits: Int32Array | null = null;
  #histogram: Float32Array | null = null;

  /** `go` takes the map to a place. */
  constructor(explorer: Explorer, go: (click: Click) => void) {
    this.#explorer = explorer;
    this.#go = go;
    const { store, site } = explorer;
    slider("threshold", (value) => {
      const least = Number(byId<HTMLInputElement>("threshold").min);
      store.set({ threshold: value <= least ? null : value });
    });
    slider("k", (k) => store.set({ k }));
    slider("spacing", (spacing) => store.set({ spacing }));
    byId("spacing-row").hidden = site.kind === "table";
  }

  update(): void {
    const { state, results } = this.#explorer;
    setSlider("k", state.k, String(state.k));
    setSlider("spacing", state.spacing, String(state.spacing));
    this.#chosen();
    this.#threshold();
    if (results.top !== this.#hits) this.#top();
  }

  #thumbnail(click: Click): HTMLCanvasElement | null {
    const { ground, sprites, reports } = this.#explorer;
    if (ground instanceof GridGround) {
      return cutOut(this.#explorer.pictures.of(click.layer), ground, click.layer, click.index);
    }
    return sprites.of(click.index, reports.problem);
  }

  #chosen(): void {
    const { state, ground, store, places, loaded, site } = this.#explorer;
    const signed = [
      ...state.positives.map((click) => ({ click, sign: "+", key: "positives" as const })),
      ...state.negatives.map((click) => ({ click, sign: "−", key: "negatives" as const })),
    ];
    byId("hint").hidden = signed.length > 0;
    byId("chosen").replaceChildren(
      ...signed.map(({ click, sign, key }) => {
        const place = loaded ? ground.name(click.layer, click.index) : "…";
        const name = site.layers.length > 1 ? `${place}, ${site.layers[click.layer].name}` : place;
        const remove = element(
          "button",
          { title: "Take away", ariaLabel: `Take away ${name}` },
          "×",
        );
        remove.onclick = () => store.remove(click);
        const parts = [sign, this.#thumbnail(click), isolated(name), remove];
        return element("li", { className: key }, ...parts.filter((part) => part !== null));
      }),
    );
    const last = signed.length ? signed[0].click : null;
    const columns = Object.entries((last && places?.columns) ?? {});
    byId("attributes").hidden = !columns.length;
    if (!last) return;
    const values = columns.map(([name, all]): [string, string] => [name, shown(all[last.index])]);
    definitions(byId("attributes"), values);
  }

  #threshold(): void {
    const explorer = this.#explorer;
    const { state, results } = explorer;
    const values = shownValues(explorer);
    const range = results.range(state.view);
    byId("threshold-row").hidden = !values || !range;
    if (!values || !range) return;
    const input = byId<HTMLInputElement>("threshold");
    const [low, high] = [Math.floor(range[0] * 100) / 100, Math.ceil(range[1] * 100) / 100];
    Object.assign(input, { min: String(low), max: String(high), step: "0.01" });
    const { threshold } = state;
    setSlider("threshold", threshold ?? low, threshold === null ? "all" : threshold.toFixed(2));
    let above = 0;
    let known = 0;
    for (let i = 0; i < values.length; i++) {
      if (values[i] >= (threshold ?? -Infinity)) above++;
      if (values[i] >= -Infinity) known++; // not NaN
    }
    const what = explorer.site.kind === "map" ? "cells" : "places";
    byId("share").textContent =
      `${thousands(above)} of ${thousands(known)} ${what} (${((100 * above) / known).toFixed(1)} %)`;
    if (values !== this.#histogram)
      drawHistogram(byId("histogram"), values, low, high, rampOf(state.view));
    this.#histogram = values;
  }

  #top(): void {
    const { results, ground, layer, places } = this.#explorer;
    this.#hits = results.top;
    byId("top").hidden = !results.top.length;
    const scores = results.scores[layer];
    byId("hits").replaceChildren(
      ...[...results.top].map((index, rank) => {
        const click = { layer, index };
        const name = ground.name(layer, index);
        const value = scores ? scores[index].toFixed(3) : "";
        const button = element("button", { title: name }, this.#thumbnail(click) ?? "");
        button.append(element("b", {}, value));
        if (places) button.append(isolated(name));
        button.ariaLabel = `${rank + 1}: ${name}, ${value}`;
        button.onclick = () => this.#go(click);
        return element("li", {}, button);
      }),
    );
  }
}
