/** Names of classes, when their number changes. */

export interface Named {
  /** The class of each vector of each layer. */
  classes: Uint8Array[];
  count: number;
  names: string[];
}

/**
 * Return the names of new classes of the same vectors: a class has the name of the old one with
 * which it shares most vectors, if that one shares most with it too.
 */
export function keptNames(old: Named, classes: Uint8Array[], count: number): string[] {
  const shared = Array.from({ length: old.count }, () => new Uint32Array(count));
  classes.forEach((part, layer) => {
    part.forEach((c, i) => {
      shared[old.classes[layer][i]][c]++;
    });
  });
  const names = Array.from({ length: count }, (_, c) => {
    const from = largest(shared.map((row) => row[c]));
    return largest([...shared[from]]) === c ? (old.names[from] ?? "") : "";
  });
  return names.some((name) => name) ? names : [];
}

const largest = (values: number[]): number => values.indexOf(Math.max(...values));
