/** What is laid over the picture: colours of vectors, and their picture on the grid. */

import { CHANGE_RAMP, CLASS_COLOURS, colourValues, SIMILARITY_RAMP } from "./colours";
import type { Grid } from "./format";
import type { Results } from "./results";
import type { State, View } from "./state";

export const rampOf = (view: View): Uint32Array =>
  view === "change" ? CHANGE_RAMP : SIMILARITY_RAMP;

/** Write the colour of each vector of a layer, and say whether there is anything to show. */
export function colourLayer(
  pixels: Uint32Array,
  cells: Uint32Array | null,
  { view, threshold }: State,
  results: Results,
  layer: number,
): boolean {
  const classes = view === "classes" ? results.classes?.[layer] : null;
  if (classes) {
    for (let i = 0; i < classes.length; i++) {
      pixels[cells ? cells[i] : i] = CLASS_COLOURS[classes[i]];
    }
    return true;
  }
  const values = results.values(view, layer);
  const range = results.range(view);
  if (!values || !range) return false;
  colourValues(pixels, cells, values, range, rampOf(view), threshold ?? -Infinity);
  return true;
}

/** A canvas with a pixel for each cell, used again and again. */
export class Overlay {
  readonly canvas = document.createElement("canvas");
  readonly #image: ImageData;
  readonly pixels: Uint32Array;

  constructor({ rows, columns }: Grid) {
    Object.assign(this.canvas, { width: columns, height: rows });
    this.#image = new ImageData(columns, rows);
    this.pixels = new Uint32Array(this.#image.data.buffer);
  }

  show(): void {
    this.canvas.getContext("2d")?.putImageData(this.#image, 0, 0);
  }
}
