/** The controls beside the map: what they show, and what they change. */

import { CLASS_COLOURS, css, gradient } from "./colours";
import {
  byId,
  check,
  choices,
  definitions,
  element,
  isolated,
  save,
  setSlider,
  slider,
} from "./dom";
import type { Explorer } from "./explorer";
import { areasOf, labelsOf, rasterOf, shownValues } from "./exports";
import { GridGround, shown } from "./ground";
import { countsOf } from "./kmeans";
import { csvOf, geoparquetOf } from "./labels";
import { rampOf } from "./overlay";
import { epsgOf } from "./projections";
import type { View } from "./state";
import { cutOut } from "./thumbnails";
import type { Click } from "./worker";

const VIEW_NAMES: Record<View, string> = {
  image: "Image",
  pca: "PCA",
  similarity: "Similarity",
  classes: "Classes",
  change: "Change",
};

const thousands = (n: number): string => n.toLocaleString("en");

export class Panels {
  readonly #explorer: Explorer;
  #hits: Int32Array | null = null;
  #counts: Uint8Array[] | null = null;
  #histogram: Float32Array | null = null;

  constructor(
    explorer: Explorer,
    readonly go: (click: Click) => void,
  ) {
    this.#explorer = explorer;
    this.#about();
    this.#wire();
  }

  #about(): void {
    const { site } = this.#explorer;
    byId("title").textContent = document.title = site.title;
    byId("subtitle").textContent = `${site.model} · ${site.weights}`;
    const vectors = thousands(site.layers.reduce((sum, { count }) => sum + count, 0));
    const kept = site.pca_variance;
    definitions(byId("about").querySelector("dl") as HTMLElement, [
      ["Model", site.model],
      ["Weights", site.weights],
      ["Embeddings", `${vectors} of ${site.dimensions} dimensions, int8`],
      ...(kept === null
        ? []
        : [["Variance kept", `${(100 * kept).toFixed(1)} %`] as [string, string]]),
      ...(site.gsd_m === null ? [] : [["GSD", `${site.gsd_m} m`] as [string, string]]),
      ["CRS", epsgOf(site.crs) ? site.crs : (site.proj4 ?? site.crs)],
      ["Made with", site.made_with],
    ]);
    const { base_map } = site;
    byId("attribution").hidden = !base_map;
    byId("attribution").textContent = base_map?.attribution ?? "";
  }

  #wire(): void {
    const explorer = this.#explorer;
    const { store, site } = explorer;
    const group = (): void => {
      const classes = number.valueAsNumber;
      const names = classes === store.state.classes ? store.state.names : [];
      store.set({ classes, names, view: "classes" });
    };
    choices(
      byId("views"),
      "view",
      explorer.views.map((view) => [view, VIEW_NAMES[view]]),
      (view) => {
        if (view === "classes" && !store.state.classes) return group();
        const scalar = view === "similarity" || view === "change";
        store.set({ view: view as View, ...(scalar ? { threshold: null } : {}) });
      },
    );
    const two = site.layers.length > 1;
    byId("swipe-on-row").hidden = !two;
    const layers = site.layers.map(({ name }, i): [string, string] => [String(i), name]);
    choices(byId("layers"), "layer", two ? layers : [], (layer) =>
      store.set({ layer: Number(layer), swipe: null }),
    );
    byId<HTMLInputElement>("swipe-on").addEventListener("change", (event) => {
      const on = (event.target as HTMLInputElement).checked;
      store.set({
        swipe: on ? 0.5 : null,
        ...(store.state.view === "change" ? { view: "image" } : {}),
      });
    });
    slider("swipe", (swipe) => store.set({ swipe }));
    slider("opacity", (opacity) => store.set({ opacity }));
    slider("threshold", (value) => {
      const least = Number(byId<HTMLInputElement>("threshold").min);
      store.set({ threshold: value <= least ? null : value });
    });
    slider("k", (k) => store.set({ k }));
    slider("spacing", (spacing) => store.set({ spacing }));
    byId("spacing-row").hidden = site.kind === "table";
    const number = slider("classes", (k) => setSlider("classes", k, String(k)));
    number.addEventListener("change", () => {
      if (store.state.classes) group();
    });
    byId("group").addEventListener("click", group);
    const stem = site.title.replace(/[^\p{L}\p{N}-]+/gu, "-").slice(0, 60) || "explorer";
    byId("save-geojson").addEventListener("click", () => {
      const areas = areasOf(explorer);
      if (areas) save(`${stem}-areas.geojson`, JSON.stringify(areas), "application/geo+json");
    });
    byId("save-geotiff").addEventListener("click", () => {
      const raster = rasterOf(explorer);
      if (typeof raster === "string") explorer.reports.status(raster);
      else save(`${stem}-${explorer.state.view}.tif`, raster, "image/tiff");
    });
    for (const input of document.querySelectorAll<HTMLInputElement>("input[name=labels]")) {
      input.addEventListener("change", () => this.update());
    }
    byId("save-csv").addEventListener("click", () => {
      const labels = labelsOf(explorer, this.#labels);
      if (labels) save(`${stem}-labels.csv`, csvOf(labels), "text/csv");
    });
    byId("save-parquet").addEventListener("click", () => {
      const labels = labelsOf(explorer, this.#labels);
      if (labels)
        save(`${stem}-labels.parquet`, geoparquetOf(labels), "application/vnd.apache.parquet");
    });
  }

  get #labels(): "clicks" | "classes" {
    const input = document.querySelector<HTMLInputElement>("input[name=labels]:checked");
    return input?.value === "classes" ? "classes" : "clicks";
  }

  update(): void {
    const explorer = this.#explorer;
    const { state, results, site } = explorer;
    check("view", state.view);
    check("layer", explorer.swiping ? "" : String(state.layer));
    byId<HTMLInputElement>("swipe-on").checked = explorer.swiping;
    byId("layers").hidden = site.layers.length < 2 || state.view === "change";
    byId("swipe").hidden = byId("swipe-names").hidden = !explorer.swiping;
    if (explorer.swiping) {
      setSlider("swipe", state.swipe ?? 0.5, `${Math.round(100 * (state.swipe ?? 0.5))} %`);
      const names = byId("swipe-names").querySelectorAll("bdi");
      site.layers.forEach(({ name }, i) => {
        names[i].textContent = name;
      });
    }
    setSlider("opacity", state.opacity, `${Math.round(100 * state.opacity)} %`);
    setSlider("k", state.k, String(state.k));
    setSlider("spacing", state.spacing, String(state.spacing));
    this.#legend();
    this.#chosen();
    this.#threshold();
    if (results.top !== this.#hits) this.#top();
    this.#classes();
    const values = shownValues(explorer);
    const enable = (id: string, on: boolean): void => {
      byId<HTMLButtonElement>(id).disabled = !on;
    };
    enable("save-geojson", values !== null && state.threshold !== null);
    enable("save-geotiff", values !== null && site.kind === "map");
    const clicked = state.positives.length + state.negatives.length > 0;
    const labelled =
      explorer.loaded && (this.#labels === "clicks" ? clicked : results.classes !== null);
    enable("save-csv", labelled);
    enable("save-parquet", labelled);
    enable("group", explorer.loaded);
  }

  #legend(): void {
    const { state, results } = this.#explorer;
    const range = results.range(state.view);
    byId("legend").hidden = !range;
    if (!range) return;
    const [low, bar, high, name] = byId("legend").children as unknown as HTMLElement[];
    low.textContent = range[0].toFixed(2);
    high.textContent = range[1].toFixed(2);
    bar.style.background = gradient(rampOf(state.view));
    const similarity = results.probability ? "probability" : "cosine similarity";
    name.textContent = state.view === "change" ? "change (1 − cosine)" : similarity;
  }

  #thumbnail(click: Click): HTMLCanvasElement | null {
    const { ground, sprites, reports } = this.#explorer;
    if (ground instanceof GridGround) {
      return cutOut(this.#explorer.picture(click.layer), ground, click.layer, click.index);
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
        remove.onclick = () => store.set({ [key]: state[key].filter((other) => other !== click) });
        const parts = [sign, this.#thumbnail(click), isolated(name), remove];
        return element("li", { className: key }, ...parts.filter((part) => part !== null));
      }),
    );
    const last = signed.length ? signed[0].click : null;
    byId("attributes").hidden = !places || !last;
    if (places && last) {
      const columns = Object.entries(places.columns).map(([name, values]): [string, string] => [
        name,
        shown(values[last.index]),
      ]);
      definitions(byId("attributes"), columns);
    }
  }

  #threshold(): void {
    const explorer = this.#explorer;
    const { state, results } = explorer;
    const values = shownValues(explorer);
    const range = results.range(state.view);
    byId("threshold-row").hidden = !values || !range;
    byId("areas-hint").hidden = state.threshold !== null;
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
    const { results, ground, layer, state } = this.#explorer;
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
        if (state.k && this.#explorer.places) button.append(isolated(name));
        button.ariaLabel = `${rank + 1}: ${name}, ${value}`;
        button.onclick = () => this.go(click);
        return element("li", {}, button);
      }),
    );
  }

  #classes(): void {
    const { state, results, store } = this.#explorer;
    const number = state.classes || byId<HTMLInputElement>("classes").valueAsNumber;
    setSlider("classes", number, String(number));
    const { classes } = results;
    if (classes === this.#counts || !classes) return;
    this.#counts = classes;
    const counts = countsOf(classes, state.classes);
    const total = counts.reduce((sum, count) => sum + count, 0);
    byId("class-list").replaceChildren(
      ...counts.map((count, c) => {
        const swatch = element("i");
        swatch.style.background = css(CLASS_COLOURS[c]);
        const input = element("input", {
          value: state.names[c] ?? "",
          placeholder: `class ${c + 1}`,
        });
        input.dir = "auto";
        input.maxLength = 60;
        input.ariaLabel = `Name of class ${c + 1}`;
        input.oninput = () => {
          const names = counts.map((_, i) =>
            i === c ? input.value : (store.state.names[i] ?? ""),
          );
          store.set({ names });
        };
        const share = element(
          "span",
          { title: `${((100 * count) / total).toFixed(1)} %` },
          thousands(count),
        );
        return element("li", {}, swatch, input, share);
      }),
    );
  }
}

function drawHistogram(
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
