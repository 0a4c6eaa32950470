/** What is laid over the picture: colours of vectors, and their picture on the grid. */

import { CHANGE_RAMP, CLASS_COLOURS, coloured, type Range, SIMILARITY_RAMP } from "./colours";
import type { Grid } from "./format";
import type { Results } from "./results";
import type { State, View } from "./state";

export const rampOf = (view: View): Uint32Array =>
  view === "change" ? CHANGE_RAMP : SIMILARITY_RAMP;

/** Return the colour of each vector of a layer, or null where nothing is laid over. */
export function coloursOf(state: State, results: Results, layer: number): Uint32Array | null {
  const { view, threshold } = state;
  if (view === "classes") {
    const classes = results.classes?.[layer];
    return classes ? Uint32Array.from(classes, (c) => CLASS_COLOURS[c]) : null;
  }
  const values = results.values(view, layer);
  if (!values) return null;
  return coloured(values, results.range(view) as Range, rampOf(view), threshold);
}

/** Write colours into the pixels of a canvas that has one for each cell. */
export function scatter(
  canvas: HTMLCanvasElement,
  grid: Grid,
  colours: Uint32Array,
  cells: Uint32Array | null,
): void {
  const image = new ImageData(grid.columns, grid.rows);
  const pixels = new Uint32Array(image.data.buffer);
  if (cells) for (let i = 0; i < cells.length; i++) pixels[cells[i]] = colours[i];
  else pixels.set(colours);
  if (canvas.width !== grid.columns || canvas.height !== grid.rows) {
    canvas.width = grid.columns;
    canvas.height = grid.rows;
  }
  canvas.getContext("2d")?.putImageData(image, 0, 0);
}
