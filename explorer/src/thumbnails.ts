/** Small pictures of cells and places. */

import type { Site } from "./format";
import { apply, type GridGround } from "./ground";
import { readImage } from "./loading";
import type { Picture } from "./mapview";

const SIZE = 56;
const CELLS_ACROSS = 7;

/** Return a canvas with a cell in the middle, cut from a picture of the map. */
export function cutOut(
  picture: Picture | undefined,
  ground: GridGround,
  layer: number,
  index: number,
): HTMLCanvasElement {
  const canvas = Object.assign(document.createElement("canvas"), { width: SIZE, height: SIZE });
  const context = canvas.getContext("2d");
  if (!context || !picture) return canvas;
  const [a, , c, , e, f] = picture.transform;
  const [x, y] = ground.point(layer, index);
  const [gx, gy] = ground.grid.transform;
  const across = (CELLS_ACROSS * Math.hypot(gx, gy)) / Math.abs(a);
  const down = across * Math.abs(a / e);
  const [column, row] = apply([1 / a, 0, -c / a, 0, 1 / e, -f / e], x, y);
  // At the edge of the picture, the cell is not in the middle.
  const left = Math.max(0, Math.min(picture.source.width - across, column - across / 2));
  const top = Math.max(0, Math.min(picture.source.height - down, row - down / 2));
  context.imageSmoothingEnabled = across > CELLS_ACROSS;
  context.drawImage(picture.source, left, top, across, down, 0, 0, SIZE, SIZE);
  return canvas;
}

/** Sprite sheets of a table, read when they are first needed. */
export class SpriteSheets {
  readonly #sheets = new Map<number, Promise<HTMLImageElement>>();

  constructor(
    readonly site: Site,
    readonly base: URL,
  ) {}

  /** Return a canvas that shows a place as soon as its sheet is there. */
  of(index: number, failed: (error: Error) => void): HTMLCanvasElement | null {
    const sprites = this.site.thumbnails;
    if (!sprites) return null;
    const { files, size, columns, rows } = sprites;
    const canvas = Object.assign(document.createElement("canvas"), { width: size, height: size });
    const [sheet, place] = [Math.floor(index / (rows * columns)), index % (rows * columns)];
    let image = this.#sheets.get(sheet);
    if (!image) {
      image = readImage(new URL(files[sheet], this.base));
      this.#sheets.set(sheet, image);
    }
    const [x, y] = [(place % columns) * size, Math.floor(place / columns) * size];
    image.then(
      (source) => canvas.getContext("2d")?.drawImage(source, x, y, size, size, 0, 0, size, size),
      failed,
    );
    return canvas;
  }
}
