/** The state in the hash of the address, and back; what is not valid is left out. */

import { type Places, textOf } from "./format";
import { INITIAL, type State, type View } from "./state";
import type { Click } from "./worker";

const VIEWS: View[] = ["image", "pca", "similarity", "classes", "change"];
const MOST_CLICKS = 1000;

/** The places of a table by their ids, as a link has them. */
export interface Ids {
  texts: string[];
  rows: Map<string, number>;
}

/** Return the ids of a table if each place has one of its own, else null. */
export function idsOf(places: Places | null): Ids | null {
  if (!places) return null;
  const texts = places.id.map((id) => (id === null ? "" : textOf(id)));
  const rows = new Map(texts.map((text, row) => [text, row]));
  return rows.size === texts.length && !rows.has("") ? { texts, rows } : null;
}

const written = (click: Click): string =>
  click.layer ? `${click.index}@${click.layer}` : `${click.index}`;

/** Return a link; places are named by their ids where there are any, else by their numbers. */
export function toHash(state: State, ids: Ids | null = null): string {
  const hash = new URLSearchParams();
  const put = (key: string, value: unknown, initial: unknown): void => {
    if (value !== initial && value !== null && value !== "") hash.append(key, String(value));
  };
  const clicks = (key: string, all: Click[]): void => {
    if (ids) for (const { index } of all) hash.append(key, ids.texts[index]);
    else put(key, all.map(written).join(" "), "");
  };
  put("view", state.view, null);
  put("layer", state.layer, INITIAL.layer);
  put("swipe", state.swipe?.toFixed(3) ?? null, null);
  put("opacity", state.opacity, INITIAL.opacity);
  clicks("like", state.positives);
  clicks("unlike", state.negatives);
  put("threshold", state.threshold, null);
  put("top", state.k, INITIAL.k);
  put("apart", state.spacing, INITIAL.spacing);
  put("classes", state.classes, 0);
  for (const name of state.names) hash.append("name", name);
  put("at", state.at?.map((v) => Number(v.toPrecision(12))).join(" ") ?? null, null);
  return `#${hash}`;
}

export function fromHash(text: string, counts: number[], ids: Ids | null = null): State {
  const hash = paramsOf(text);
  const number = (key: string, from: number, to: number): number | null => {
    const value = Number.parseFloat(hash.get(key) ?? "");
    return value >= from && value <= to ? value : null;
  };
  const clicks = (key: string): Click[] => {
    const all = ids
      ? hash.getAll(key).map((id) => ({ index: ids.rows.get(id) ?? -1, layer: 0 }))
      : numbered(hash.get(key) ?? "");
    return all.filter((click) => isHere(click, counts)).slice(0, MOST_CLICKS);
  };
  const view = VIEWS.find((name) => name === hash.get("view")) ?? INITIAL.view;
  const classes = Math.round(number("classes", 2, 12) ?? 0);
  const at = (hash.get("at") ?? "").split(" ").map(Number);
  const two = counts.length > 1;
  return {
    view: (view === "change" && !two) || (view === "classes" && !classes) ? INITIAL.view : view,
    layer: Math.round(number("layer", 0, counts.length - 1) ?? 0),
    swipe: two ? number("swipe", 0, 1) : null,
    opacity: number("opacity", 0, 1) ?? INITIAL.opacity,
    positives: clicks("like"),
    negatives: clicks("unlike"),
    threshold: number("threshold", -1, 2),
    k: Math.round(number("top", 10, 100) ?? INITIAL.k),
    spacing: Math.round(number("apart", 0, 20) ?? INITIAL.spacing),
    classes,
    names: hash.getAll("name").slice(0, classes),
    at:
      at.length === 3 && at.every(Number.isFinite) && at[2] > 0
        ? (at as [number, number, number])
        : null,
  };
}

/** Return the clicks of a link, as they are written, of places that are not here. */
export function unknownClicks(text: string, counts: number[], ids: Ids | null): string[] {
  const hash = paramsOf(text);
  const stated = ["like", "unlike"].flatMap((key) =>
    ids ? hash.getAll(key) : hash.getAll(key).flatMap((part) => part.split(" ").filter(Boolean)),
  );
  const here = (one: string): boolean =>
    ids ? ids.rows.has(one) : numbered(one).every((click) => isHere(click, counts));
  return stated.filter((one) => !here(one));
}

const paramsOf = (text: string): URLSearchParams => new URLSearchParams(text.replace(/^#/, ""));

/** Return clicks that are written as numbers: 5 7@1. */
const numbered = (text: string): Click[] =>
  text
    .split(" ")
    .filter((part) => part !== "")
    .map((part) => part.split("@").map(Number))
    .map(([index, layer = 0]) => ({ index, layer }));

const isHere = ({ index, layer }: Click, counts: number[]): boolean =>
  Number.isInteger(index) && index >= 0 && index < counts[layer];
