/** A GeoTIFF of one band. */

import type { Grid } from "./format";

export interface Band {
  /** Row by row. */
  values: Float32Array | Uint8Array;
  nodata: string;
  /** Metadata of the band. */
  tags?: [string, string][];
  /** Colours of the values 0, 1, … of a band of bytes, as 0xAABBGGRR. */
  colours?: number[];
}

export interface FileCrs {
  /** The code of EPSG, or WKT 1 where it has none. */
  crs: number | string;
  degrees: boolean;
}

const [SHORT, LONG, DOUBLE, ASCII] = [3, 4, 12, 2];
const SIZES: Record<number, number> = { [SHORT]: 2, [LONG]: 4, [DOUBLE]: 8, [ASCII]: 1 };
const USER_DEFINED = 32_767;

const ENTITIES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

type Tag = [number, number, number[]];

const text = (value: string): number[] => [...new TextEncoder().encode(`${value}\0`)];

/** Return the keys of the CRS, four numbers each, and their text. */
function geoKeys({ crs, degrees }: FileCrs): Tag[] {
  const pixelIsArea = [1025, 0, 1, 1];
  if (typeof crs === "number") {
    const model = [1024, 0, 1, degrees ? 2 : 1];
    const code = [degrees ? 2048 : 3072, 0, 1, crs];
    return [[34735, SHORT, [1, 1, 0, 3, ...model, ...pixelIsArea, ...code]]];
  }
  // As ArcGIS writes a CRS without a code, and GDAL reads it: a model of its own, and a citation.
  const citation = text(`ESRI PE String = ${crs}|`);
  const model = [1024, 0, 1, USER_DEFINED];
  const cited = [3073, 34737, citation.length - 1, 0];
  return [
    [34735, SHORT, [1, 1, 0, 3, ...model, ...pixelIsArea, ...cited]],
    [34737, ASCII, citation],
  ];
}

/** Return tags as GDAL keeps metadata. */
function metadata(tags: [string, string][]): string {
  const escaped = (value: string): string => value.replace(/[&<>"]/g, (ch) => ENTITIES[ch]);
  const items = tags.map(([key, value]) => {
    const line = value.replace(/\p{Cc}/gu, " ");
    // GDAL escapes values twice, and reads them so.
    return `<Item name="${escaped(key)}" sample="0">${escaped(escaped(line))}</Item>`;
  });
  return `<GDALMetadata>${items.join("")}</GDALMetadata>`;
}

/** Return 256 reds, greens and blues of 16 bits. */
function palette(colours: number[]): number[] {
  const all = Array.from({ length: 256 }, (_, i) => colours[i] ?? 0);
  return [0, 8, 16].flatMap((shift) => all.map((colour) => ((colour >>> shift) & 255) * 257));
}

/** Return the bytes of a file. */
export function geotiff(band: Band, grid: Grid, crs: FileCrs): ArrayBuffer {
  const { values, nodata, tags: ofBand = [], colours } = band;
  const [a, b, c, d, e, f] = grid.transform;
  const float = values instanceof Float32Array;
  const strip: Tag = [273, LONG, [0]];
  const tags: Tag[] = [
    [256, LONG, [grid.columns]],
    [257, LONG, [grid.rows]],
    [258, SHORT, [8 * values.BYTES_PER_ELEMENT]],
    [259, SHORT, [1]],
    [262, SHORT, [colours ? 3 : 1]],
    strip,
    [277, SHORT, [1]],
    [278, LONG, [grid.rows]],
    [279, LONG, [values.byteLength]],
    ...(colours ? [[320, SHORT, palette(colours)] as Tag] : []),
    [339, SHORT, [float ? 3 : 1]],
    [34264, DOUBLE, [a, b, 0, c, d, e, 0, f, 0, 0, 0, 0, 0, 0, 0, 1]],
    ...geoKeys(crs),
    ...(ofBand.length ? [[42112, ASCII, text(metadata(ofBand))] as Tag] : []),
    [42113, ASCII, text(nodata)],
  ];
  const directory = 8;
  let extra = directory + 2 + 12 * tags.length + 4;
  const places = tags.map(([, type, data]) => {
    const bytes = SIZES[type] * data.length;
    const at = bytes > 4 ? extra : 0;
    if (bytes > 4) extra += bytes + (bytes % 2);
    return at;
  });
  const pixels = Math.ceil(extra / 16) * 16;
  strip[2] = [pixels];
  const buffer = new ArrayBuffer(pixels + values.byteLength);
  const view = new DataView(buffer);
  view.setUint32(0, 0x49492a00);
  view.setUint32(4, directory, true);
  view.setUint16(directory, tags.length, true);
  tags.forEach(([tag, type, data], i) => {
    const entry = directory + 2 + 12 * i;
    view.setUint16(entry, tag, true);
    view.setUint16(entry + 2, type, true);
    view.setUint32(entry + 4, data.length, true);
    if (places[i]) view.setUint32(entry + 8, places[i], true);
    data.forEach((value, j) => {
      const at = (places[i] || entry + 8) + j * SIZES[type];
      if (type === SHORT) view.setUint16(at, value, true);
      else if (type === LONG) view.setUint32(at, value, true);
      else if (type === DOUBLE) view.setFloat64(at, value, true);
      else view.setUint8(at, value);
    });
  });
  // Browsers run on little-endian machines.
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  new Uint8Array(buffer, pixels).set(bytes);
  return buffer;
}
