/** What the page is about. */

import { byId, definitions } from "../dom";
import { type Site, thousands } from "../format";
import { epsgOf } from "../projections";

export function describe(site: Site): void {
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
    ...(site.gsd_m === null
      ? []
      : [
          [site.kind === "table" ? "GSD of the input" : "GSD", `${site.gsd_m} m`] as [
            string,
            string,
          ],
        ]),
    ["CRS", epsgOf(site.crs) ? site.crs : (site.proj4 ?? site.crs)],
    ...(site.embedded_with ? [["Embedded with", site.embedded_with] as [string, string]] : []),
    ["Page made with", site.made_with],
  ]);
  const { base_map } = site;
  byId("attribution").hidden = !base_map;
  byId("attribution").textContent = base_map?.attribution ?? "";
}
