/** From clicks to a direction in the space of unit vectors. */

/** Weights on unit vectors; with a bias, the score is a probability, else a cosine. */
export interface Query {
  weights: Float64Array;
  bias: number | null;
}

// Inverse strength of the L2 penalty, as `C` of scikit-learn: clicks are few and deliberate.
export const PENALTY_C = 10;
const ENOUGH_FOR_REGRESSION = 3;

/** Return the query that unit vectors of positive and negative clicks describe. */
export function makeQuery(positives: Float64Array[], negatives: Float64Array[]): Query {
  if (Math.min(positives.length, negatives.length) >= ENOUGH_FOR_REGRESSION) {
    return logisticRegression(positives, negatives);
  }
  const weights = new Float64Array((positives[0] ?? negatives[0]).length);
  for (const [vectors, sign] of [[positives, 1] as const, [negatives, -1] as const]) {
    for (const vector of vectors) {
      for (let d = 0; d < weights.length; d++) weights[d] += (sign * vector[d]) / vectors.length;
    }
  }
  return { weights, bias: null };
}

/**
 * Fit logistic regression with an L2 penalty by Newton steps in the space of the samples: the
 * weights are a sum of the few clicks, however many dimensions there are.
 */
export function logisticRegression(positives: Float64Array[], negatives: Float64Array[]): Query {
  const samples = [...positives, ...negatives];
  const n = samples.length;
  const target = samples.map((_, i) => (i < positives.length ? 1 : 0));
  const gram = samples.map((a) => samples.map((b) => a.reduce((sum, v, d) => sum + v * b[d], 0)));
  let alpha: number[] = new Array(n).fill(0);
  let bias = 0;
  for (let step = 0; step < 50; step++) {
    const score = gram.map((row) => row.reduce((sum, g, j) => sum + g * alpha[j], bias));
    const p = score.map((s) => 1 / (1 + Math.exp(-s)));
    const spread = p.map((v) => Math.max(v * (1 - v), 1e-12));
    // (K + (C W)^-1) alpha + bias = z, sum(alpha) = 0
    const system = gram.map((row, i) => [
      ...row.map((g, j) => (i === j ? g + 1 / (PENALTY_C * spread[i]) : g)),
      1,
      score[i] + (target[i] - p[i]) / spread[i],
    ]);
    const solution = solved([...system, [...new Array(n).fill(1), 0, 0]]);
    const moved = Math.max(...alpha.map((a, i) => Math.abs(a - solution[i])));
    alpha = solution.slice(0, n);
    bias = solution[n];
    if (moved < 1e-10) break;
  }
  const weights = new Float64Array(samples[0].length);
  samples.forEach((sample, i) => {
    for (let d = 0; d < weights.length; d++) weights[d] += alpha[i] * sample[d];
  });
  return { weights, bias };
}

/** Solve a small linear system, rows of coefficients with the right side last. */
function solved(rows: number[][]): number[] {
  const n = rows.length;
  for (let c = 0; c < n; c++) {
    const pivot = rows.reduce(
      (best, row, r) => (r >= c && Math.abs(row[c]) > Math.abs(rows[best][c]) ? r : best),
      c,
    );
    [rows[c], rows[pivot]] = [rows[pivot], rows[c]];
    for (let r = 0; r < n; r++) {
      const factor = r === c ? 0 : rows[r][c] / rows[c][c];
      if (factor) for (let k = c; k <= n; k++) rows[r][k] -= factor * rows[c][k];
    }
  }
  return rows.map((row, r) => row[n] / row[r]);
}
