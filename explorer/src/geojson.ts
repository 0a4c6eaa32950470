/** Polygons of cells in longitude and latitude, as RFC 7946 wants them. */

import { apply, type GridGround, type Point } from "./ground";
import { polygonsOf, type Ring } from "./polygons";

/** Return the areas of a mask as a FeatureCollection; each has `properties` and its number of cells. */
export function areasAsGeoJson(mask: Uint8Array, ground: GridGround, properties: object): object {
  const { rows, columns } = ground.grid;
  const features = halves(mask, ground).flatMap(({ part, within }) =>
    polygonsOf(part, rows, columns).map((rings) => ({
      type: "Feature",
      properties: { cells: rings.reduce((sum, ring) => sum + area(ring) / 2, 0), ...properties },
      geometry: {
        type: "Polygon",
        coordinates: rings.map((ring, i) => closed(ring, i === 0, ground, within)),
      },
    })),
  );
  return { type: "FeatureCollection", features };
}

interface Half {
  part: Uint8Array;
  /** Brings a longitude to this side of the antimeridian. */
  within: (lon: number) => number;
}

/** Cut a mask that crosses the antimeridian in its eastern and its western half. */
function halves(mask: Uint8Array, ground: GridGround): Half[] {
  const { rows, columns, transform } = ground.grid;
  const lon = (x: number, y: number): number => ground.toLonLat(apply(transform, x, y))[0];
  const corners = [lon(0, 0), lon(columns, 0), lon(0, rows), lon(columns, rows)];
  if (Math.max(...corners) - Math.min(...corners) < 180) return [{ part: mask, within: (v) => v }];
  return [1, -1].map((side) => ({
    part: mask.map((on, i) => {
      const centre = lon((i % columns) + 0.5, Math.floor(i / columns) + 0.5);
      return on && centre > 0 === side > 0 ? 1 : 0;
    }),
    within: (v) => (v * side < 0 ? 180 * side : v),
  }));
}

const DIGITS = 1e8; // about a millimetre

function closed(ring: Ring, outer: boolean, ground: GridGround, within: Half["within"]): Point[] {
  const points = ring.map(([x, y]): Point => {
    const [lon, lat] = ground.toLonLat(apply(ground.grid.transform, x, y));
    return [Math.round(within(lon) * DIGITS) / DIGITS, Math.round(lat * DIGITS) / DIGITS];
  });
  // Outer rings run counter-clockwise, holes clockwise.
  if (area(points) > 0 !== outer) points.reverse();
  return [...points, points[0]];
}

/** Twice the area of a ring: positive where it is counter-clockwise with y upwards. */
function area(ring: Point[]): number {
  return ring.reduce((sum, [x, y], i) => {
    const [u, v] = ring[(i + 1) % ring.length];
    return sum + x * v - u * y;
  }, 0);
}
