/** The controls beside the map. */

import type { Explorer } from "./explorer";
import { describe } from "./panels/about";
import { ClassPanel } from "./panels/classes";
import { DownloadPanel } from "./panels/downloads";
import { SearchPanel } from "./panels/searching";
import { ViewPanel } from "./panels/views";
import type { Click } from "./worker";

export class Panels {
  readonly #panels: { update(): void }[];

  constructor(explorer: Explorer, go: (click: Click) => void) {
    describe(explorer.site);
    const classes = new ClassPanel(explorer);
    this.#panels = [
      new ViewPanel(explorer, () => classes.group()),
      new SearchPanel(explorer, go),
      classes,
      new DownloadPanel(explorer),
    ];
  }

  update(): void {
    for (const panel of this.#panels) panel.update();
  }
}
