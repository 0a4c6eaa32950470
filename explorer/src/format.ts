/** What explore.json holds, and the checks that come before anything is believed. */

export const FORMAT = 1;

export type Affine = [number, number, number, number, number, number];

export interface Grid {
  transform: Affine;
  rows: number;
  columns: number;
}

export interface Layer {
  name: string;
  count: number;
  vectors: string;
  cells: string | null;
  grid: Grid | null;
  pca: string | null;
  image: { file: string; bounds: [number, number, number, number] } | null;
}

export interface Sprites {
  files: string[];
  size: number;
  columns: number;
  rows: number;
}

export interface Site {
  format: number;
  kind: "map" | "table";
  title: string;
  made_with: string;
  /** What the embeddings were made with, where that is known. */
  embedded_with?: string | null;
  model: string;
  weights: string;
  output: "tokens" | "vectors";
  gsd_m: number | null;
  dimensions: number;
  pca_variance: number | null;
  crs: string;
  proj4: string | null;
  /** WKT 1 of a CRS without a code of EPSG, where that says the same. */
  wkt?: string | null;
  base_map: { url: string; attribution: string } | null;
  layers: Layer[];
  places: string | null;
  pca_colours: string | null;
  thumbnails: Sprites | null;
}

/** Columns of a table of places. */
export interface Places {
  id: unknown[];
  lon: (number | null)[];
  lat: (number | null)[];
  columns: Record<string, unknown[]>;
}

/** A problem of the data or the browser, in words for the person who looks at the page. */
export class SiteError extends Error {}

/** Return the site that explore.json describes, or say what is wrong with it. */
export function checkedSite(value: unknown): Site {
  const site = value as Partial<Site> | null;
  if (typeof site !== "object" || site === null || !("format" in site)) {
    throw new SiteError(
      "explore.json does not describe a site of rs-embed: it has no “format”. Run rs-embed explore again.",
    );
  }
  if (site.format !== FORMAT) {
    throw new SiteError(
      `explore.json has format ${String(site.format)}, this page reads format ${FORMAT}. ` +
        "Page and data come from different versions of rs-embed: run rs-embed explore again.",
    );
  }
  const layers = site.layers;
  const dimensions = site.dimensions ?? 0;
  if (!Array.isArray(layers) || layers.length < 1 || layers.length > 2 || !(dimensions > 0)) {
    throw new SiteError(
      `explore.json has ${layers?.length ?? 0} layers of ${String(site.dimensions)} dimensions, ` +
        "expected one or two layers and one dimension or more. Run rs-embed explore again.",
    );
  }
  for (const layer of layers) {
    if (!(layer.count > 0) || (site.kind === "map" && !layer.grid)) {
      throw new SiteError(
        `layer “${layer.name}” in explore.json has ${String(layer.count)} vectors and ` +
          `${layer.grid ? "a" : "no"} grid, expected one vector or more${site.kind === "map" ? " and a grid" : ""}.`,
      );
    }
  }
  return site as Site;
}

/** Any JSON value as text. */
export const textOf = (value: unknown): string =>
  typeof value === "string" ? value : JSON.stringify(value);

export const thousands = (n: number): string => n.toLocaleString("en");
