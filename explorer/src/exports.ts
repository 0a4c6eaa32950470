/** Files of what the page shows. */

import type { Explorer } from "./explorer";
import { areasAsGeoJson } from "./geojson";
import { geotiff } from "./geotiff";
import { GridGround } from "./ground";
import type { Labels } from "./labels";
import { epsgOf } from "./projections";
import type { Click } from "./worker";

/** Return the values that the map shows, or null. */
export const shownValues = (explorer: Explorer): Float32Array | null =>
  explorer.results.values(explorer.state.view, explorer.layer);

/** Return the areas, or the places of a table, that the threshold shows. */
export function areasOf(explorer: Explorer): object | null {
  const values = shownValues(explorer);
  const { threshold, view } = explorer.state;
  if (!values || threshold === null) return null;
  const { ground, layer } = explorer;
  const name =
    view === "change" ? "change" : explorer.results.probability ? "probability" : "similarity";
  if (ground instanceof GridGround) {
    const mask = new Uint8Array(ground.grid.rows * ground.grid.columns);
    const cells = ground.cells(layer);
    for (let i = 0; i < values.length; i++) {
      mask[cells ? cells[i] : i] = values[i] >= threshold ? 1 : 0;
    }
    return areasAsGeoJson(mask, ground, { [`least_${name}`]: threshold });
  }
  const features = [...values.keys()]
    .filter(
      (i) => values[i] >= threshold && ground.lonLat(layer, i).every((v) => typeof v === "number"),
    )
    .map((i) => ({
      type: "Feature",
      properties: { id: explorer.places?.id[i], [name]: values[i] },
      geometry: { type: "Point", coordinates: ground.lonLat(layer, i) },
    }));
  return { type: "FeatureCollection", features };
}

/** Return the values shown as a GeoTIFF, or the reason why there is none. */
export function rasterOf(explorer: Explorer): ArrayBuffer | string {
  const values = shownValues(explorer);
  const { ground, layer, site } = explorer;
  if (!(ground instanceof GridGround)) return "Places of a table have no grid: use GeoJSON.";
  if (!values) return "Show a similarity or a change first.";
  const epsg = epsgOf(site.crs);
  if (epsg === null)
    return `The CRS ${site.crs} has no EPSG code, which a GeoTIFF of this page needs.`;
  const full = new Float32Array(ground.grid.rows * ground.grid.columns).fill(Number.NaN);
  const cells = ground.cells(layer);
  for (let i = 0; i < values.length; i++) full[cells ? cells[i] : i] = values[i];
  return geotiff(full, ground.grid, epsg, ground.projection.getUnits() === "degrees");
}

/** Return the clicks, or all vectors with their class, as labelled places. */
export function labelsOf(explorer: Explorer, kind: "clicks" | "classes"): Labels | null {
  const { state, results, ground, layer, places, site } = explorer;
  const clicks: [Click, string][] = [];
  if (kind === "clicks") {
    for (const click of state.positives) clicks.push([click, "positive"]);
    for (const click of state.negatives) clicks.push([click, "negative"]);
  } else {
    results.classes?.[layer].forEach((c, index) => {
      clicks.push([{ layer, index }, state.names[c] || `class ${c + 1}`]);
    });
  }
  if (!clicks.length) return null;
  const points = clicks.map(([{ layer, index }]) => ground.lonLat(layer, index));
  return {
    ids: places && clicks.map(([{ index }]) => places.id[index]),
    lon: points.map(([lon]) => lon),
    lat: points.map(([, lat]) => lat),
    layer: site.layers.length > 1 ? clicks.map(([click]) => site.layers[click.layer].name) : null,
    label: clicks.map(([, label]) => label),
  };
}
