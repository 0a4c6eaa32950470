/** Outlines of the cells of a mask, as valid polygons on the corners of the grid. */

export type Ring = [number, number][];

/**
 * Return the polygons of cells that share sides, each as its outer ring and its holes. Corners are
 * (column, row); rings that touch themselves in a corner are split there, so that all are valid.
 */
export function polygonsOf(mask: Uint8Array, rows: number, columns: number): Ring[][] {
  const part = parts(mask, rows, columns);
  const inside = (r: number, c: number): boolean =>
    r >= 0 && c >= 0 && r < rows && c < columns && mask[r * columns + c] > 0;
  // Edges by the corner where they begin, the cell on their right hand (rows go down).
  const width = columns + 1;
  const edges = new Map<number, { to: number; part: number }[]>();
  const add = (r: number, c: number, to: number, label: number): void => {
    const from = r * width + c;
    const others = edges.get(from);
    if (others) others.push({ to, part: label });
    else edges.set(from, [{ to, part: label }]);
  };
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      if (!inside(r, c)) continue;
      const label = part[r * columns + c];
      const corner = r * width + c;
      if (!inside(r - 1, c)) add(r, c, corner + 1, label);
      if (!inside(r, c + 1)) add(r, c + 1, corner + width + 1, label);
      if (!inside(r + 1, c)) add(r + 1, c + 1, corner + width, label);
      if (!inside(r, c - 1)) add(r + 1, c, corner, label);
    }
  }
  const polygons: Ring[][] = [];
  for (const start of edges.keys()) {
    for (let next = edges.get(start); next?.length; ) {
      const label = next[next.length - 1].part;
      for (const ring of rings(edges, start, label)) {
        const corners = ring.map((at): [number, number] => [at % width, Math.floor(at / width)]);
        polygons[label] ??= [[]];
        if (area(corners) > 0) polygons[label][0] = simplified(corners);
        else polygons[label].push(simplified(corners));
      }
      next = edges.get(start);
    }
  }
  return polygons.filter((rings) => rings);
}

/** Follow the edges of one part from a corner, and cut off a ring at each corner that comes again. */
function rings(
  edges: Map<number, { to: number; part: number }[]>,
  start: number,
  label: number,
): number[][] {
  const found: number[][] = [];
  const path = [start];
  const seen = new Map([[start, 0]]);
  while (path.length) {
    const out = edges.get(path[path.length - 1]) ?? [];
    const i = out.findIndex((edge) => edge.part === label);
    if (i < 0) break;
    const { to } = out.splice(i, 1)[0];
    const before = seen.get(to);
    if (before === undefined) {
      seen.set(to, path.push(to) - 1);
    } else {
      const ring = path.splice(before + 1);
      for (const corner of ring) seen.delete(corner);
      found.push([to, ...ring]);
      if (before === 0) break;
    }
  }
  return found;
}

/** Number the parts of the mask that hang together by sides. */
function parts(mask: Uint8Array, rows: number, columns: number): Int32Array {
  const part = new Int32Array(mask.length).fill(-1);
  let label = 0;
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || part[start] >= 0) continue;
    const stack = [start];
    part[start] = label;
    for (let i = stack.pop(); i !== undefined; i = stack.pop()) {
      const c = i % columns;
      const near = [c > 0 ? i - 1 : -1, c < columns - 1 ? i + 1 : -1, i - columns, i + columns];
      for (const j of near) {
        if (j >= 0 && j < rows * columns && mask[j] && part[j] < 0) {
          part[j] = label;
          stack.push(j);
        }
      }
    }
    label++;
  }
  return part;
}

/** Twice the area; positive for a ring that is clockwise where rows go down. */
function area(ring: Ring): number {
  return ring.reduce((sum, [x, y], i) => {
    const [u, v] = ring[(i + 1) % ring.length];
    return sum + x * v - u * y;
  }, 0);
}

// A straight side keeps a corner each so many cells: straight on the grid is not on the globe.
const LONGEST_SIDE = 16;

/** Leave out corners within straight sides. */
function simplified(ring: Ring): Ring {
  return ring.filter(([x, y], i) => {
    const [a, b] = ring[(i + ring.length - 1) % ring.length];
    const [c, d] = ring[(i + 1) % ring.length];
    const straight = (a === x && x === c) || (b === y && y === d);
    return !straight || (x + y) % LONGEST_SIDE === 0;
  });
}
