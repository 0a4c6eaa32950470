/** Paints on the map what the state says of the results. */

import { packed } from "./colours";
import { apply, GridGround, type Ground } from "./ground";
import type { MapView, Mark, Picture, Side } from "./mapview";
import { colourLayer, Overlay } from "./overlay";
import type { Pictures } from "./pictures";
import { ascending } from "./points";
import type { Results } from "./results";
import type { State } from "./state";
import type { Click } from "./worker";

export class Painter {
  readonly #overlays: Overlay[] = [];
  readonly #dots: Uint32Array;

  constructor(
    readonly view: MapView,
    readonly ground: Ground,
    readonly pictures: Pictures,
    readonly results: Results,
    places: number,
  ) {
    this.#dots = new Uint32Array(places);
  }

  /** Paint the given layers side by side; marks only where it is known which cells there are. */
  paint(state: State, layers: number[], marked: boolean): void {
    this.view.sides = layers.map((layer) => this.#side(state, layer));
    this.view.swipe = layers.length > 1 ? state.swipe : null;
    this.view.marks = marked ? this.#marks(state, layers[0]) : [];
    this.view.render();
  }

  /** Put the cursor on a vector, or take it away. */
  setCursor(click: Click | null): void {
    this.view.cursor = click && this.ground.point(click.layer, click.index);
    this.view.cursorCorners = null;
    if (click && this.ground instanceof GridGround) {
      const [row, column] = this.ground.cell(click.layer, click.index);
      const { transform } = this.ground.grid;
      this.view.cursorCorners = [
        [0, 0],
        [1, 0],
        [1, 1],
        [0, 1],
      ].map(([x, y]) => apply(transform, column + x, row + y));
    }
    this.view.render();
  }

  #side(state: State, layer: number): Side {
    const { view, opacity } = state;
    const pictures: Picture[] = [];
    const image = this.pictures.images[layer];
    const pca = this.pictures.pcas[layer];
    if (image) pictures.push(image);
    if (pca && (view === "pca" || !image)) pictures.push({ ...pca, opacity: image ? opacity : 1 });
    if (this.ground instanceof GridGround) {
      this.#overlays[layer] ??= new Overlay(this.ground.grid);
      const overlay = this.#overlays[layer];
      const cells = this.ground.cells(layer);
      if (colourLayer(overlay.pixels, cells, state, this.results, layer)) {
        overlay.show();
        const { transform } = this.ground.grid;
        pictures.push({ source: overlay.canvas, transform, smooth: false, opacity });
      }
      return { pictures, colours: null, order: null };
    }
    const colours = this.#dots;
    if (!colourLayer(colours, null, state, this.results, layer)) {
      colours.set(this.pictures.places ?? colours.fill(packed(80, 130, 200)));
    }
    const values = this.results.values(view, layer);
    return { pictures, colours, order: values && ascending(values) };
  }

  #marks({ view, positives, negatives }: State, layer: number): Mark[] {
    const mark =
      (kind: Mark["kind"]) =>
      (click: Click): Mark => ({
        point: this.ground.point(click.layer, click.index),
        kind,
      });
    const hits = view === "similarity" ? [...this.results.top] : [];
    return [
      ...hits.map((index) => mark("hit")({ layer, index })),
      ...positives.map(mark("positive")),
      ...negatives.map(mark("negative")),
    ];
  }
}
