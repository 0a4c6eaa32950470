/** Where vectors are: cells of a grid, or places of a table. */

import { getPointResolution, type Projection, transform } from "ol/proj";
import { type Affine, type Grid, type Places, SiteError, textOf } from "./format";

export type Point = [number, number];
export type Extent = [number, number, number, number];

export interface Ground {
  extent: Extent;
  /** Coordinates of a vector in the CRS of the view. */
  point(layer: number, index: number): Point;
  lonLat(layer: number, index: number): Point;
  /** The vector at or near a point, or -1; `reach` is in units of the view. */
  at(layer: number, point: Point, reach: number): number;
  /** The vector a step to the right and up, or the same one where there is none. */
  beside(layer: number, index: number, right: number, up: number): number;
  name(layer: number, index: number): string;
  /** Resolution of the view at which a place is seen well. */
  closest: number;
}

export const apply = ([a, b, c, d, e, f]: Affine, x: number, y: number): Point => [
  a * x + b * y + c,
  d * x + e * y + f,
];

function inverse([a, b, c, d, e, f]: Affine): Affine {
  const det = a * e - b * d;
  return [e / det, -b / det, (b * f - c * e) / det, -d / det, a / det, (c * d - a * f) / det];
}

export class GridGround implements Ground {
  readonly extent: Extent;
  readonly closest: number;
  readonly #inverse: Affine;
  #cells: (Uint32Array | null)[] = [];
  #indices: (Int32Array | null)[] = [];

  constructor(
    readonly grid: Grid,
    readonly projection: Projection,
  ) {
    const { rows, columns, transform } = grid;
    const corners = [0, columns].flatMap((x) => [0, rows].map((y) => apply(transform, x, y)));
    const [xs, ys] = [0, 1].map((axis) => corners.map((corner) => corner[axis]));
    this.extent = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
    this.closest = Math.hypot(transform[0], transform[3]) / 24;
    this.#inverse = inverse(transform);
  }

  /** Say which cells have vectors, once that is loaded. */
  setCells(cells: (Uint32Array | null)[]): void {
    this.#cells = cells;
    this.#indices = cells.map((flat) => {
      if (!flat) return null;
      const indices = new Int32Array(this.grid.rows * this.grid.columns).fill(-1);
      for (let i = 0; i < flat.length; i++) indices[flat[i]] = i;
      return indices;
    });
  }

  cell(layer: number, index: number): Point {
    const cell = this.#cells[layer]?.[index] ?? index;
    return [Math.floor(cell / this.grid.columns), cell % this.grid.columns];
  }

  cells(layer: number): Uint32Array | null {
    return this.#cells[layer] ?? null;
  }

  point(layer: number, index: number): Point {
    const [row, column] = this.cell(layer, index);
    return apply(this.grid.transform, column + 0.5, row + 0.5);
  }

  lonLat(layer: number, index: number): Point {
    return this.toLonLat(this.point(layer, index));
  }

  toLonLat(point: Point): Point {
    return transform(point, this.projection, "EPSG:4326") as Point;
  }

  at(layer: number, point: Point): number {
    const [x, y] = apply(this.#inverse, ...point);
    return this.#index(layer, Math.floor(y), Math.floor(x));
  }

  beside(layer: number, index: number, right: number, up: number): number {
    const [row, column] = this.cell(layer, index);
    for (let i = 1; i <= Math.max(this.grid.rows, this.grid.columns); i++) {
      const next = this.#index(layer, row - up * i, column + right * i);
      if (next >= 0) return next;
    }
    return index;
  }

  name(layer: number, index: number): string {
    const [row, column] = this.cell(layer, index);
    return `row ${row}, column ${column}`;
  }

  #index(layer: number, row: number, column: number): number {
    const { rows, columns } = this.grid;
    if (row < 0 || column < 0 || row >= rows || column >= columns) return -1;
    const cell = row * columns + column;
    const indices = this.#indices[layer];
    return indices ? indices[cell] : cell;
  }
}

// The latitude where the square world of web maps ends.
const MERCATOR_LATITUDE = 85.05;

export class TableGround implements Ground {
  readonly extent: Extent;
  readonly closest: number;
  /** Coordinates in the view, x and y of each place in turn; NaN without any. */
  readonly points: Float64Array;

  constructor(
    readonly places: Places,
    projection: Projection,
  ) {
    const count = places.id.length;
    this.points = new Float64Array(2 * count).fill(Number.NaN);
    const extent: Extent = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < count; i++) {
      const [lon, lat] = [places.lon[i], places.lat[i]];
      if (typeof lon !== "number" || typeof lat !== "number") continue;
      const within = Math.max(-MERCATOR_LATITUDE, Math.min(MERCATOR_LATITUDE, lat));
      const [x, y] = transform([lon, within], "EPSG:4326", projection);
      this.points.set([x, y], 2 * i);
      extent[0] = Math.min(extent[0], x);
      extent[1] = Math.min(extent[1], y);
      extent[2] = Math.max(extent[2], x);
      extent[3] = Math.max(extent[3], y);
    }
    if (extent[0] > extent[2]) throw new SiteError("no place of the table has a position.");
    const room = Math.max(1000, 0.02 * Math.max(extent[2] - extent[0], extent[3] - extent[1]));
    this.extent = [extent[0] - room, extent[1] - room, extent[2] + room, extent[3] + room];
    const middle: Point = [(extent[0] + extent[2]) / 2, (extent[1] + extent[3]) / 2];
    this.closest = 20 / getPointResolution(projection, 1, middle);
  }

  point(_layer: number, index: number): Point {
    return [this.points[2 * index], this.points[2 * index + 1]];
  }

  lonLat(_layer: number, index: number): Point {
    return [this.places.lon[index] as number, this.places.lat[index] as number];
  }

  at(_layer: number, [x, y]: Point, reach: number): number {
    return this.#nearest((dx, dy) => Math.hypot(dx, dy), x, y, reach);
  }

  beside(_layer: number, index: number, right: number, up: number): number {
    const [x, y] = this.point(0, index);
    // Ahead counts once, aside twice; what is behind or the place itself does not count.
    const cost = (dx: number, dy: number): number => {
      const ahead = right * dx + up * dy;
      const aside = Math.abs(right * dy) + Math.abs(up * dx);
      return ahead > 0 && aside <= 2 * ahead ? ahead + 2 * aside : Infinity;
    };
    const found = this.#nearest(cost, x, y, Infinity);
    return found < 0 ? index : found;
  }

  name(_layer: number, index: number): string {
    return shown(this.places.id[index]);
  }

  #nearest(cost: (dx: number, dy: number) => number, x: number, y: number, most: number): number {
    let [best, least] = [-1, most];
    for (let i = 0; i < this.places.id.length; i++) {
      const value = cost(this.points[2 * i] - x, this.points[2 * i + 1] - y);
      if (value < least) [best, least] = [i, value];
    }
    return best;
  }
}

/** Any JSON value as text for people. */
export const shown = (value: unknown): string =>
  value === null || value === undefined ? "–" : textOf(value);
