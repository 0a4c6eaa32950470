/** Colours as 0xAABBGGRR, the order of pixels of a canvas in memory. */

const VIRIDIS = "440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725";
const CIVIDIS = "00224e 1b3b6f 3f4d6d 575d6d 6e6e73 858176 9d9477 b8a973 d4be6a fee838";
// Paul Tol's muted scheme and neighbours of it: distinct for colour-blind readers, too.
const CLASSES =
  "332288 88ccee 44aa99 117733 ddcc77 cc6677 aa4499 999933 882255 ee8866 bbcc33 77aadd";

export const packed = (r: number, g: number, b: number): number =>
  ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;

const channels = (hex: string): [number, number, number] =>
  [0, 2, 4].map((i) => Number.parseInt(hex.slice(i, i + 2), 16)) as [number, number, number];

export const css = (colour: number): string =>
  `rgb(${colour & 255} ${(colour >> 8) & 255} ${(colour >> 16) & 255})`;

export const CLASS_COLOURS = Uint32Array.from(CLASSES.split(" "), (hex) =>
  packed(...channels(hex)),
);

/** 256 colours between the given ones. */
function ramp(stops: string): Uint32Array {
  const colours = stops.split(" ").map(channels);
  return Uint32Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (colours.length - 1);
    const low = Math.min(Math.floor(at), colours.length - 2);
    const mix = colours[low].map((c, j) => Math.round(c + (colours[low + 1][j] - c) * (at - low)));
    return packed(...(mix as [number, number, number]));
  });
}

export const SIMILARITY_RAMP = ramp(VIRIDIS);
export const CHANGE_RAMP = ramp(CIVIDIS);

/** A gradient for legends. */
export const gradient = (colours: Uint32Array): string =>
  `linear-gradient(90deg, ${[0, 51, 102, 153, 204, 255].map((i) => css(colours[i])).join(", ")})`;

export type Range = [number, number];

// Values that the range is taken from.
const SAMPLE = 16_384;

/** Return the range that shows most of the values: the lowest 2 % are cut. */
export function rangeOf(values: Float32Array): Range {
  const step = Math.max(1, Math.floor(values.length / SAMPLE));
  const some = new Float32Array(Math.ceil(values.length / step));
  let known = 0;
  for (let i = 0; i < values.length; i += step) {
    if (!Number.isNaN(values[i])) some[known++] = values[i];
  }
  const sorted = some.subarray(0, known).sort();
  const low = sorted[Math.floor(known * 0.02)] ?? 0;
  // The highest of all: what is rare is what people look for.
  let high = Number.NEGATIVE_INFINITY;
  for (const value of values) if (value > high) high = value;
  return high > low ? [low, high] : [low, low + 1e-6];
}

/** Write a colour for each value, at its cell; 0, which is transparent, for NaN and below `least`. */
export function colourValues(
  pixels: Uint32Array,
  cells: Uint32Array | null,
  values: Float32Array,
  [low, high]: Range,
  ramp: Uint32Array,
  least: number,
): void {
  const factor = 255.999 / (high - low);
  for (let i = 0; i < values.length; i++) {
    const v = values[i];
    const at = (v - low) * factor;
    const colour = ramp[at <= 0 ? 0 : at >= 255 ? 255 : at | 0];
    pixels[cells ? cells[i] : i] = v >= least ? colour : 0;
  }
}
