/** The most similar vectors, if wished some cells apart. */

export interface Apart {
  spacing: number;
  columns: number;
  cells: Uint32Array | null;
}

const BUCKETS = 4096;

/** Return the indices of the `k` largest scores in descending order; equal ones by their index. */
export function best(
  scores: Float32Array,
  k: number,
  left_out: Set<number> = new Set(),
  apart: Apart | null = null,
): Int32Array<ArrayBuffer> {
  const counts = new Uint32Array(BUCKETS);
  const bucket = (v: number): number =>
    Math.max(0, Math.min(BUCKETS - 1, Math.floor(((v + 1) / 2) * BUCKETS)));
  for (let i = 0; i < scores.length; i++) counts[bucket(scores[i])]++;
  const side = 2 * (apart?.spacing ?? 0) + 1;
  for (let wanted = k + left_out.size + (side > 1 ? k * side : 0); ; wanted *= 4) {
    let lowest = BUCKETS;
    for (let sum = 0; lowest > 0 && sum < wanted; ) sum += counts[--lowest];
    const candidates: number[] = [];
    for (let i = 0; i < scores.length; i++) {
      if (bucket(scores[i]) >= lowest && !left_out.has(i)) candidates.push(i);
    }
    candidates.sort((a, b) => scores[b] - scores[a] || a - b);
    const kept =
      side > 1 && apart ? spread(candidates, k, apart, left_out) : candidates.slice(0, k);
    if (kept.length === k || lowest === 0) return Int32Array.from(kept);
  }
}

function spread(candidates: number[], k: number, apart: Apart, left_out: Set<number>): number[] {
  const at = (i: number): [number, number] => {
    const cell = apart.cells ? apart.cells[i] : i;
    return [Math.floor(cell / apart.columns), cell % apart.columns];
  };
  const taken = [...left_out].map(at);
  const kept: number[] = [];
  for (const i of candidates) {
    const [row, column] = at(i);
    const near = taken.some(
      ([r, c]) => Math.max(Math.abs(r - row), Math.abs(c - column)) <= apart.spacing,
    );
    if (near) continue;
    taken.push([row, column]);
    if (kept.push(i) === k) break;
  }
  return kept;
}
