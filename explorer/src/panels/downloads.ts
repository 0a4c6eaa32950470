/** The files that a person can take away. */

import { byId, save } from "../dom";
import type { Explorer } from "../explorer";
import {
  areasOf,
  areasProblem,
  labelsOf,
  labelsProblem,
  rasterOf,
  rasterProblem,
} from "../exports";
import { csvOf, geoparquetOf } from "../labels";

export class DownloadPanel {
  readonly #explorer: Explorer;

  constructor(explorer: Explorer) {
    this.#explorer = explorer;
    const stem = plain(explorer.site.title) || "explorer";
    byId("save-geojson").addEventListener("click", () => {
      const areas = areasOf(explorer);
      if (areas) save(`${stem}-areas.geojson`, JSON.stringify(areas), "application/geo+json");
    });
    byId("save-geotiff").addEventListener("click", () => {
      const raster = rasterOf(explorer);
      if (raster) save(`${stem}-${this.#shown}.tif`, raster, "image/tiff");
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

  /** The view, and where there are two layers, which of them. */
  get #shown(): string {
    const { site, state, layer } = this.#explorer;
    const one = site.layers.length > 1 && state.view !== "change";
    return one ? `${state.view}-${plain(site.layers[layer].name)}` : state.view;
  }

  get #labels(): "clicks" | "classes" {
    const input = document.querySelector<HTMLInputElement>("input[name=labels]:checked");
    return input?.value === "classes" ? "classes" : "clicks";
  }

  update(): void {
    const explorer = this.#explorer;
    const labels = labelsProblem(explorer, this.#labels);
    const places = explorer.site.kind === "table";
    byId("save-geojson").textContent = places ? "Places, GeoJSON" : "Areas, GeoJSON";
    byId("save-geotiff").textContent =
      explorer.state.view === "classes" ? "Classes, GeoTIFF" : "Values, GeoTIFF";
    offer("files-hint", {
      "save-geojson": areasProblem(explorer),
      "save-geotiff": rasterProblem(explorer),
    });
    offer("labels-hint", { "save-csv": labels, "save-parquet": labels });
  }
}

/** Return a part of the name of a file. */
const plain = (text: string): string => text.replace(/[^\p{L}\p{N}-]+/gu, "-").slice(0, 60);

/** Switch buttons on, or off where there is a problem; and say which. */
function offer(hint: string, problems: Record<string, string | null>): void {
  for (const [id, problem] of Object.entries(problems)) {
    const button = byId<HTMLButtonElement>(id);
    button.disabled = problem !== null;
    button.title = problem ?? "";
  }
  const texts = new Set(Object.values(problems).filter((problem) => problem !== null));
  byId(hint).textContent = [...texts].join(" ");
  byId(hint).hidden = texts.size === 0;
}
