/** The state in the hash of the address, and back; what is not valid is left out. */

import { INITIAL, type State, type View } from "./state";
import type { Click } from "./worker";

const VIEWS: View[] = ["image", "pca", "similarity", "classes", "change"];

const written = (click: Click): string =>
  click.layer ? `${click.index}@${click.layer}` : `${click.index}`;

export function toHash(state: State): string {
  const hash = new URLSearchParams();
  const put = (key: string, value: unknown, initial: unknown): void => {
    if (value !== initial && value !== null && value !== "") hash.append(key, String(value));
  };
  put("view", state.view, null);
  put("layer", state.layer, INITIAL.layer);
  put("swipe", state.swipe?.toFixed(3) ?? null, null);
  put("opacity", state.opacity, INITIAL.opacity);
  put("like", state.positives.map(written).join(" "), "");
  put("unlike", state.negatives.map(written).join(" "), "");
  put("threshold", state.threshold, null);
  put("top", state.k, INITIAL.k);
  put("apart", state.spacing, INITIAL.spacing);
  put("classes", state.classes, 0);
  for (const name of state.names) hash.append("name", name);
  put("at", state.at?.map((v) => Number(v.toPrecision(12))).join(" ") ?? null, null);
  return `#${hash}`;
}

export function fromHash(text: string, counts: number[]): State {
  const hash = new URLSearchParams(text.replace(/^#/, ""));
  const number = (key: string, from: number, to: number): number | null => {
    const value = Number.parseFloat(hash.get(key) ?? "");
    return value >= from && value <= to ? value : null;
  };
  const clicks = (key: string): Click[] =>
    (hash.get(key) ?? "")
      .split(" ")
      .map((part) => part.split("@").map(Number))
      .map(([index, layer = 0]) => ({ index, layer }))
      .filter(({ index, layer }) => Number.isInteger(index) && index >= 0 && index < counts[layer])
      .filter((_, i, all) => all.length < 1000 && (hash.get(key) ?? "") !== "" && i >= 0);
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
