/** What is under the mouse, over the map. The status line says the same of the cursor of the keys. */

import { byId } from "./dom";
import type { Explorer } from "./explorer";
import { readingOf } from "./reading";
import type { Click } from "./worker";

export class Readout {
  readonly #explorer: Explorer;
  #click: Click | null = null;

  constructor(explorer: Explorer) {
    this.#explorer = explorer;
  }

  show(click: Click | null): void {
    this.#click = click;
    this.update();
  }

  update(): void {
    byId("readout").hidden = !this.#click;
    if (!this.#click) return;
    const [name, value] = readingOf(this.#explorer, this.#click);
    const [place, reading] = byId("readout").children;
    place.textContent = name;
    reading.textContent = value;
  }
}
