/** Files of what the page shows. */

import { CLASS_COLOURS } from "./colours";
import type { Explorer } from "./explorer";
import { areasAsGeoJson } from "./geojson";
import { geotiff } from "./geotiff";
import { GridGround } from "./ground";
import type { Labels } from "./labels";
import { epsgOf } from "./projections";
import { className } from "./reading";
import type { Click } from "./worker";

const NO_CLASS = 255;

/** Return the values that the map shows, or null. */
export const shownValues = (explorer: Explorer): Float32Array | null =>
  explorer.results.values(explorer.state.view, explorer.layer);

const shownClasses = (explorer: Explorer): Uint8Array | null =>
  explorer.state.view === "classes" ? (explorer.classes?.[explorer.layer] ?? null) : null;

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

/** Return why there are no areas to save, or null. */
export function areasProblem(explorer: Explorer): string | null {
  const known = shownValues(explorer) && explorer.state.threshold !== null;
  const what = explorer.site.kind === "map" ? "Areas are" : "GeoJSON has";
  const how = shownValues(explorer) ? "set one" : "search, then set one";
  return known ? null : `${what} what the threshold shows: ${how}.`;
}

/** Return why there is no GeoTIFF to save, or null. */
export function rasterProblem(explorer: Explorer): string | null {
  const { site } = explorer;
  if (site.kind === "table") return "GeoTIFF needs a grid: this is a table of places.";
  if (epsgOf(site.crs) === null && !site.wkt) {
    return `GeoTIFF cannot hold the CRS of this map: ${site.crs.slice(0, 60)}.`;
  }
  if (shownValues(explorer) || shownClasses(explorer)) return null;
  return "GeoTIFF has the values or classes shown: search, or group what is alike.";
}

/** Return the values or classes shown as a GeoTIFF, or null. */
export function rasterOf(explorer: Explorer): ArrayBuffer | null {
  const { ground, layer, site, state } = explorer;
  const crs = epsgOf(site.crs) ?? site.wkt;
  if (!(ground instanceof GridGround) || !crs) return null;
  const placed = <T extends Float32Array | Uint8Array>(full: T, values: T): T => {
    const cells = ground.cells(layer);
    for (let i = 0; i < values.length; i++) full[cells ? cells[i] : i] = values[i];
    return full;
  };
  const size = ground.grid.rows * ground.grid.columns;
  const fileCrs = { crs, degrees: ground.projection.getUnits() === "degrees" };
  const classes = shownClasses(explorer);
  if (classes) {
    const names = Array.from({ length: state.classes }, (_, c) => className(state.names, c));
    // Numbers from 0 and the tag `classes`, as in the files of `predict_map` and `cluster_map`.
    const band = {
      values: placed(new Uint8Array(size).fill(NO_CLASS), classes),
      nodata: String(NO_CLASS),
      tags: [["classes", JSON.stringify(names)]] as [string, string][],
      colours: [...CLASS_COLOURS.slice(0, state.classes)],
    };
    return geotiff(band, ground.grid, fileCrs);
  }
  const values = shownValues(explorer);
  if (!values) return null;
  const full = placed(new Float32Array(size).fill(Number.NaN), values);
  return geotiff({ values: full, nodata: "nan" }, ground.grid, fileCrs);
}

/** Return why there are no labels to save, or null. */
export function labelsProblem(explorer: Explorer, kind: "clicks" | "classes"): string | null {
  const { state, loaded, classes } = explorer;
  if (!loaded) return "The embeddings are not loaded yet.";
  if (kind === "classes") return classes ? null : "Labels of classes: group what is alike first.";
  const clicked = state.positives.length + state.negatives.length > 0;
  return clicked ? null : "Labels of clicks: click a place first.";
}

/** Return the clicks, or all vectors with their class, as labelled places. */
export function labelsOf(explorer: Explorer, kind: "clicks" | "classes"): Labels | null {
  const { state, ground, layer, places, site } = explorer;
  const clicks: [Click, string][] = [];
  if (kind === "clicks") {
    for (const click of state.positives) clicks.push([click, "positive"]);
    for (const click of state.negatives) clicks.push([click, "negative"]);
  } else {
    explorer.classes?.[layer].forEach((c, index) => {
      clicks.push([{ layer, index }, className(state.names, c)]);
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
