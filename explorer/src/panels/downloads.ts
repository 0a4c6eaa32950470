/** The files that a person can take away. */

import { byId, save } from "../dom";
import type { Explorer } from "../explorer";
import { areasOf, labelsOf, rasterOf, shownValues } from "../exports";
import { csvOf, geoparquetOf } from "../labels";

export class DownloadPanel {
  readonly #explorer: Explorer;

  constructor(explorer: Explorer) {
    this.#explorer = explorer;
    const stem = explorer.site.title.replace(/[^\p{L}\p{N}-]+/gu, "-").slice(0, 60) || "explorer";
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
    const { state, results, site, loaded } = this.#explorer;
    const values = shownValues(this.#explorer);
    const enable = (id: string, on: boolean): void => {
      byId<HTMLButtonElement>(id).disabled = !on;
    };
    byId("areas-hint").hidden = state.threshold !== null;
    enable("save-geojson", values !== null && state.threshold !== null);
    enable("save-geotiff", values !== null && site.kind === "map");
    const clicked = state.positives.length + state.negatives.length > 0;
    const labelled = loaded && (this.#labels === "clicks" ? clicked : results.classes !== null);
    enable("save-csv", labelled);
    enable("save-parquet", labelled);
  }
}
