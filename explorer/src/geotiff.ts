/** A GeoTIFF of one float32 band. */

import type { Grid } from "./format";

const [SHORT, LONG, DOUBLE, ASCII] = [3, 4, 12, 2];
const SIZES: Record<number, number> = { [SHORT]: 2, [LONG]: 4, [DOUBLE]: 8, [ASCII]: 1 };

/** Return the bytes of a file whose values are row by row; NaN is nodata. */
export function geotiff(
  values: Float32Array,
  grid: Grid,
  epsg: number,
  degrees: boolean,
): ArrayBuffer {
  const [a, b, c, d, e, f] = grid.transform;
  const text = (value: string): number[] => [...`${value}\0`].map((ch) => ch.charCodeAt(0));
  // GTModelType, GTRasterType (pixel is area), and the code of the CRS.
  const keys = [1, 1, 0, 3, 1024, 0, 1, degrees ? 2 : 1, 1025, 0, 1, 1];
  keys.push(degrees ? 2048 : 3072, 0, 1, epsg);
  const tags: [number, number, number[]][] = [
    [256, LONG, [grid.columns]],
    [257, LONG, [grid.rows]],
    [258, SHORT, [32]],
    [259, SHORT, [1]],
    [262, SHORT, [1]],
    [273, LONG, [0]],
    [277, SHORT, [1]],
    [278, LONG, [grid.rows]],
    [279, LONG, [values.byteLength]],
    [339, SHORT, [3]],
    [34264, DOUBLE, [a, b, 0, c, d, e, 0, f, 0, 0, 0, 0, 0, 0, 0, 1]],
    [34735, SHORT, keys],
    [42113, ASCII, text("nan")],
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
  tags[5][2] = [pixels];
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
  new Float32Array(buffer, pixels).set(values); // browsers run on little-endian machines
  return buffer;
}
