/** The page at work: reads the site, asks the worker, and paints what the state says. */

import { Client } from "./client";
import { packed } from "./colours";
import { type Places, type Site, SiteError } from "./format";
import { apply, GridGround, type Ground, TableGround } from "./ground";
import { readImage, readInto, readPlaces } from "./loading";
import { MapView, type Mark, type Picture, type Side } from "./mapview";
import { colourLayer, Overlay } from "./overlay";
import { ascending } from "./points";
import { projectionOf } from "./projections";
import { Results } from "./results";
import type { State, Store, View } from "./state";
import { SpriteSheets } from "./thumbnails";
import type { Click, TopRequest } from "./worker";

type Changed = Set<keyof State>;

export interface Reports {
  problem(error: unknown): void;
  status(text: string): void;
  progress(share: number | null): void;
  /** Anything that the panels show may have changed. */
  updated(): void;
}

export class Explorer {
  readonly results = new Results();
  readonly sprites: SpriteSheets;
  readonly views: View[];
  readonly view: MapView;
  readonly ready: Promise<void>;
  /** Milliseconds from the last change of the clicks to the map that shows their result. */
  clickToPaintMs: number | null = null;
  /** Milliseconds from the start of the page to the picture, or the places. */
  pictureMs: number | null = null;
  workerMs: number | null = null;
  kernel = "";
  images: (Picture | undefined)[] = [];
  pcas: (Picture | undefined)[] = [];
  #placeColours: Uint32Array | null = null;
  readonly #overlays: Overlay[] = [];
  readonly #dots: Uint32Array;
  readonly #client: Client;
  #searching: Promise<void> | null = null;
  #again = false;
  #loaded = false;

  static async open(site: Site, base: URL, store: Store, reports: Reports, plain: boolean) {
    const { places } = site;
    if (site.kind === "table" && !places) throw new SiteError("explore.json names no places.json.");
    const read = places ? await readPlaces(new URL(places, base), site.layers[0].count) : null;
    return new Explorer(site, base, store, reports, read, plain);
  }

  private constructor(
    readonly site: Site,
    readonly base: URL,
    readonly store: Store,
    readonly reports: Reports,
    readonly places: Places | null,
    plain: boolean,
    readonly ground: Ground = groundOf(site, places),
  ) {
    this.#dots = new Uint32Array(places?.id.length ?? 0);
    this.sprites = new SpriteSheets(site, base);
    const first = site.layers[0];
    const map = site.kind === "map";
    const has: [View, boolean][] = [
      ["image", map && first.image !== null],
      ["pca", !map || first.pca !== null],
      ["similarity", true],
      ["classes", true],
      ["change", map && site.layers.length > 1],
    ];
    this.views = has.filter(([, there]) => there).map(([name]) => name);
    if (!this.views.includes(store.state.view)) store.set({ view: this.views[0] });
    this.#client = new Client(new URL("worker.js", base), (share) => reports.progress(share));
    const target = document.getElementById("map") as HTMLElement;
    const tiles = site.base_map?.url ?? null;
    this.view = new MapView(target, projectionOf(site), ground, tiles, store.state.at);
    store.listen((changed) => this.#react(changed));
    this.ready = this.#load(plain);
  }

  get state(): Readonly<State> {
    return this.store.state;
  }

  get busy(): boolean {
    return this.#client.busy || this.#searching !== null;
  }

  get loaded(): boolean {
    return this.#loaded;
  }

  get swiping(): boolean {
    return this.state.swipe !== null && this.state.view !== "change";
  }

  /** The layer whose vectors the map shows. */
  get layer(): number {
    return this.swiping || this.state.view === "change" ? 0 : this.state.layer;
  }

  get topRequest(): TopRequest {
    const { k, spacing, positives, negatives } = this.state;
    const { layer } = this;
    const left_out = [...positives, ...negatives]
      .filter((c) => c.layer === layer)
      .map((c) => c.index);
    return { layer, k, spacing: this.site.kind === "map" ? spacing : 0, left_out };
  }

  async #load(plain: boolean): Promise<void> {
    const { site, base } = this;
    await this.#loadPictures();
    this.paint();
    await this.#painted();
    this.pictureMs = performance.now();
    this.reports.updated();
    this.reports.status("Loading the embeddings.");
    const { kernel, cells } = await this.#client.call("load", { site, base: base.href, plain });
    this.kernel = kernel;
    if (this.ground instanceof GridGround) this.ground.setCells(cells);
    this.#loaded = true;
    this.reports.progress(null);
    const slow = kernel === "JavaScript" ? " This browser has no WebAssembly SIMD: slower." : "";
    this.reports.status(`Ready.${slow}`);
    const { positives, negatives, classes, view } = this.state;
    if (classes) await this.group();
    if (view === "change") await this.#change();
    if (positives.length || negatives.length) await this.search();
    this.paint();
    this.reports.updated();
  }

  async #loadPictures(): Promise<void> {
    const { site, base } = this;
    if (site.pca_colours) {
      const bytes = new Uint8Array(3 * site.layers[0].count);
      await readInto(new URL(site.pca_colours, base), bytes);
      this.#placeColours = Uint32Array.from({ length: bytes.length / 3 }, (_, i) =>
        packed(bytes[3 * i], bytes[3 * i + 1], bytes[3 * i + 2]),
      );
    }
    for (const [i, { image, pca, grid }] of site.layers.entries()) {
      if (image) {
        const source = await readImage(new URL(image.file, base));
        const [left, bottom, right, top] = image.bounds;
        const [w, h] = [(right - left) / source.width, (bottom - top) / source.height];
        this.images[i] = { source, transform: [w, 0, left, 0, h, top], smooth: true, opacity: 1 };
        this.paint();
      }
      if (pca && grid) {
        const source = await readImage(new URL(pca, base));
        this.pcas[i] = { source, transform: grid.transform, smooth: false, opacity: 1 };
        this.paint();
      }
    }
  }

  #react(changed: Changed): void {
    const any = (...keys: (keyof State)[]): boolean => keys.some((key) => changed.has(key));
    if (this.#loaded) {
      if (any("positives", "negatives", "layer", "swipe")) void this.#guarded(this.search());
      else if (any("k", "spacing", "view")) void this.#guarded(this.#top());
      if (any("classes")) void this.#guarded(this.group());
      if (any("view") && this.state.view === "change") void this.#guarded(this.#change());
    }
    if (any("at") && changed.size === 1) return;
    if (!any("positives", "negatives") || !this.state.positives.length) this.paint();
    this.reports.updated();
  }

  async #guarded(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      this.reports.problem(error);
    }
  }

  /** Search with the clicks as they are; while one search runs, only the last of the next ones waits. */
  async search(): Promise<void> {
    this.#again = this.#searching !== null;
    if (this.#searching) return this.#searching;
    this.#searching = (async () => {
      const began = performance.now();
      do {
        this.#again = false;
        await this.#searchOnce();
        await this.#painted();
      } while (this.#again);
      this.clickToPaintMs = performance.now() - began;
      this.reports.updated();
    })().finally(() => {
      this.#searching = null;
    });
    return this.#searching;
  }

  async #searchOnce(): Promise<void> {
    const { positives, negatives } = this.state;
    if (!positives.length && !negatives.length) {
      this.results.setScores([], false, new Int32Array(0));
    } else {
      const layers = this.swiping ? [0, 1] : [this.layer];
      const ask = {
        positives: [...positives],
        negatives: [...negatives],
        layers,
        top: this.topRequest,
      };
      const { scores, probability, top, milliseconds } = await this.#client.call("search", ask);
      this.results.setScores(scores, probability, top);
      this.workerMs = milliseconds;
      const best = scores[this.layer]?.[top[0]];
      if (best !== undefined) {
        const name = this.ground.name(this.layer, top[0]);
        this.reports.status(`Most similar: ${name} (${best.toFixed(3)}).`);
      }
    }
    this.paint();
  }

  #painted(): Promise<void> {
    return new Promise((done) => this.view.map.once("postrender", () => done()));
  }

  async #top(): Promise<void> {
    if (!this.results.scores[this.layer]) return;
    this.results.top = await this.#client.call("top", this.topRequest);
    this.paint();
    this.reports.updated();
  }

  async group(): Promise<void> {
    const k = this.state.classes;
    this.reports.status(`Grouping into ${k} classes.`);
    const classes = await this.#client.call("classes", { k });
    if (k !== this.state.classes) return;
    this.results.classes = classes;
    this.reports.status(`Grouped into ${k} classes.`);
    this.paint();
    this.reports.updated();
  }

  async #change(): Promise<void> {
    this.results.change ??= await this.#client.call("change", null);
    this.paint();
    this.reports.updated();
  }

  /** The picture below thumbnails: what the model saw, or the colours of the principal components. */
  picture(layer: number): Picture | undefined {
    return this.images[layer] ?? this.pcas[layer];
  }

  #side(layer: number): Side {
    const { view, opacity } = this.state;
    const pictures: Picture[] = [];
    const image = this.images[layer];
    const pca = this.pcas[layer];
    if (image) pictures.push(image);
    if (pca && (view === "pca" || !image)) pictures.push({ ...pca, opacity: image ? opacity : 1 });
    if (this.ground instanceof GridGround) {
      this.#overlays[layer] ??= new Overlay(this.ground.grid);
      const overlay = this.#overlays[layer];
      const cells = this.ground.cells(layer);
      if (colourLayer(overlay.pixels, cells, this.state, this.results, layer)) {
        overlay.show();
        const { transform } = this.ground.grid;
        pictures.push({ source: overlay.canvas, transform, smooth: false, opacity });
      }
      return { pictures, colours: null, order: null };
    }
    const colours = this.#dots;
    if (!colourLayer(colours, null, this.state, this.results, layer)) {
      colours.set(this.#placeColours ?? colours.fill(packed(80, 130, 200)));
    }
    const values = this.results.values(view, layer);
    return { pictures, colours, order: values && ascending(values) };
  }

  paint(): void {
    const { swipe, positives, negatives, view } = this.state;
    this.view.sides = this.swiping ? [this.#side(0), this.#side(1)] : [this.#side(this.layer)];
    this.view.swipe = this.swiping ? swipe : null;
    const mark =
      (kind: Mark["kind"]) =>
      (click: Click): Mark => ({
        point: this.ground.point(click.layer, click.index),
        kind,
      });
    const hits = view === "similarity" ? [...this.results.top] : [];
    this.view.marks = this.#loaded
      ? [
          ...hits.map((index) => mark("hit")({ layer: this.layer, index })),
          ...positives.map(mark("positive")),
          ...negatives.map(mark("negative")),
        ]
      : [];
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
}

function groundOf(site: Site, places: Places | null): Ground {
  const projection = projectionOf(site);
  if (places) return new TableGround(places, projection);
  const { grid } = site.layers[0];
  if (!grid) throw new SiteError("explore.json has a map without a grid.");
  return new GridGround(grid, projection);
}
