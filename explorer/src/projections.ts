/** The CRS of the view, and of the file that is written from it. */

import { get, type Projection } from "ol/proj";
import { register } from "ol/proj/proj4";
import proj4 from "proj4";
import { type Site, SiteError } from "./format";

/** Return the CRS of the view: that of the grid, or web Mercator for places. */
export function projectionOf(site: Site): Projection {
  const code = site.kind === "table" ? "EPSG:3857" : site.crs;
  if (site.proj4 && !get(code)) {
    proj4.defs(code, site.proj4);
    register(proj4);
  }
  const projection = get(code);
  if (!projection) {
    throw new SiteError(`explore.json has the CRS “${code}” without a valid proj4 definition.`);
  }
  return projection;
}

/** Return the number of an EPSG code, or null. */
export const epsgOf = (crs: string): number | null => {
  const found = /^EPSG:(\d{4,5})$/.exec(crs);
  return found ? Number(found[1]) : null;
};
