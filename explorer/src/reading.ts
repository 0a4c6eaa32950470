/** What the map shows of one vector, in words. */

import type { Explorer } from "./explorer";
import type { Click } from "./worker";

/** Return the name of a vector, and its value or class if the view has any. */
export function readingOf(explorer: Explorer, click: Click): [name: string, value: string] {
  const { ground, results, state, layer } = explorer;
  const name = ground.name(click.layer, click.index);
  if (state.view === "classes") {
    const c = explorer.classes?.[click.layer][click.index];
    return [name, c === undefined ? "" : className(state.names, c)];
  }
  const shown = click.layer === layer || state.swipe !== null;
  const value = shown ? results.values(state.view, click.layer)?.[click.index] : undefined;
  return [name, value === undefined || Number.isNaN(value) ? "" : value.toFixed(3)];
}

export const className = (names: string[], c: number): string => names[c] || `class ${c + 1}`;
