/** The classes: their number, names and sizes. */

import { CLASS_COLOURS, css } from "../colours";
import { byId, element, setSlider, slider } from "../dom";
import type { Explorer } from "../explorer";
import { thousands } from "../format";
import { countsOf } from "../kmeans";

export class ClassPanel {
  readonly #explorer: Explorer;
  readonly #number: HTMLInputElement;
  #counted: Uint8Array[] | null = null;

  constructor(explorer: Explorer) {
    this.#explorer = explorer;
    this.#number = slider("classes", (k) => setSlider("classes", k, String(k)));
    this.#number.addEventListener("change", () => {
      if (explorer.state.classes) this.group();
    });
    byId("group").addEventListener("click", () => this.group());
  }

  /** Make as many classes as the slider says, and show them. */
  group(): void {
    this.#explorer.regroup(this.#number.valueAsNumber);
  }

  update(): void {
    const { state, classes, loaded } = this.#explorer;
    byId<HTMLButtonElement>("group").disabled = !loaded;
    const number = state.classes || this.#number.valueAsNumber;
    setSlider("classes", number, String(number));
    byId("class-list").inert = !classes;
    if (!classes) return;
    if (classes === this.#counted) {
      this.#names();
      return;
    }
    this.#counted = classes;
    const counts = countsOf(classes, state.classes);
    byId("class-list").replaceChildren(...counts.map((_, c) => this.#row(c, counts)));
  }

  /** Show the names as they are, but for one that is being written. */
  #names(): void {
    byId("class-list")
      .querySelectorAll("input")
      .forEach((input, c) => {
        if (input !== document.activeElement) input.value = this.#explorer.state.names[c] ?? "";
      });
  }

  #row(c: number, counts: number[]): HTMLElement {
    const { state, store } = this.#explorer;
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
      const names = counts.map((_, i) => (i === c ? input.value : (store.state.names[i] ?? "")));
      store.set({ names });
    };
    const total = counts.reduce((sum, count) => sum + count, 0);
    const title = `${((100 * counts[c]) / total).toFixed(1)} %`;
    const share = element("span", { title }, thousands(counts[c]));
    return element("li", {}, swatch, input, share);
  }
}
