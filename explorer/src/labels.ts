/** Labelled places as CSV and GeoParquet, for fit_classifier and for GIS. */

import { parquetWriteBuffer } from "hyparquet-writer";
import { textOf } from "./format";

export interface Labels {
  /** Ids of a table's places, or null for cells of a map. */
  ids: unknown[] | null;
  lon: (number | null)[];
  lat: (number | null)[];
  /** Names of the layers that were clicked, where there are two. */
  layer: string[] | null;
  label: string[];
}

const plain = (value: unknown): string => (value === null ? "" : textOf(value));

const quoted = (value: string): string =>
  /[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;

export function csvOf({ ids, lon, lat, layer, label }: Labels): string {
  const head = [...(ids ? ["id"] : ["lon", "lat"]), ...(layer ? ["layer"] : []), "label"];
  const lines = label.map((text, i) => {
    const place = ids ? [plain(ids[i])] : [String(lon[i]), String(lat[i])];
    return [...place, ...(layer ? [layer[i]] : []), text].map(quoted).join(",");
  });
  return `${[head.join(","), ...lines].join("\r\n")}\r\n`;
}

/** A point as well-known binary, or null. */
function wkb(lon: number | null, lat: number | null): Uint8Array | null {
  if (lon === null || lat === null) return null;
  const view = new DataView(new ArrayBuffer(21));
  view.setUint8(0, 1);
  view.setUint32(1, 1, true);
  view.setFloat64(5, lon, true);
  view.setFloat64(13, lat, true);
  return new Uint8Array(view.buffer);
}

/** GeoParquet 1.1: longitude and latitude are its CRS where none is stated. */
export function geoparquetOf({ ids, lon, lat, layer, label }: Labels): ArrayBuffer {
  const numbers = ids?.every((id) => Number.isSafeInteger(id));
  const id = ids && {
    name: "id",
    data: numbers ? ids.map((v) => BigInt(v as number)) : ids.map(plain),
    type: numbers ? ("INT64" as const) : ("STRING" as const),
  };
  const geo = {
    version: "1.1.0",
    primary_column: "geometry",
    columns: { geometry: { encoding: "WKB", geometry_types: ["Point"] } },
  };
  return parquetWriteBuffer({
    columnData: [
      ...(id ? [id] : []),
      ...(layer ? [{ name: "layer", data: layer, type: "STRING" as const }] : []),
      { name: "label", data: label, type: "STRING" },
      { name: "geometry", data: lon.map((x, i) => wkb(x, lat[i])), type: "BYTE_ARRAY" },
    ],
    kvMetadata: [{ key: "geo", value: JSON.stringify(geo) }],
  });
}
