/** What the map shows: the view, the layer or both, the legend. */

import { gradient } from "../colours";
import { byId, check, choices, setSlider, slider } from "../dom";
import type { Explorer } from "../explorer";
import { rampOf } from "../overlay";
import type { View } from "../state";

const VIEW_NAMES: Record<View, string> = {
  image: "Image",
  pca: "PCA",
  similarity: "Similarity",
  classes: "Classes",
  change: "Change",
};

export class ViewPanel {
  readonly #explorer: Explorer;

  /** `group` makes the classes, where the view of them is chosen before there are any. */
  constructor(explorer: Explorer, group: () => void) {
    this.#explorer = explorer;
    const { store, site } = explorer;
    choices(
      byId("views"),
      "view",
      store.views.map((view) => [view, VIEW_NAMES[view]]),
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
  }

  update(): void {
    const { state, site, swiping } = this.#explorer;
    check("view", state.view);
    check("layer", swiping ? "" : String(state.layer));
    byId<HTMLInputElement>("swipe-on").checked = swiping;
    byId("layers").hidden = site.layers.length < 2 || state.view === "change";
    byId("swipe").hidden = byId("swipe-names").hidden = !swiping;
    if (swiping) {
      setSlider("swipe", state.swipe ?? 0.5, `${Math.round(100 * (state.swipe ?? 0.5))} %`);
      const names = byId("swipe-names").querySelectorAll("bdi");
      site.layers.forEach(({ name }, i) => {
        names[i].textContent = name;
      });
    }
    byId("swipe-note").hidden = !swiping;
    byId("swipe-note").textContent =
      `The list, the values below and downloads are of ${site.layers[0].name}.`;
    byId<HTMLInputElement>("opacity").disabled = state.view === "image";
    setSlider("opacity", state.opacity, `${Math.round(100 * state.opacity)} %`);
    this.#legend();
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
}
