/** The page at work: asks the worker what the state needs, and has the answers painted. */

import { keptNames, type Named } from "./classnames";
import { Client } from "./client";
import { type Places, type Site, SiteError } from "./format";
import { GridGround, type Ground, TableGround } from "./ground";
import { MapView } from "./mapview";
import { Painter } from "./painter";
import { Pictures } from "./pictures";
import { projectionOf } from "./projections";
import { Results } from "./results";
import type { State, Store } from "./state";
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
  readonly view: MapView;
  readonly ready: Promise<void>;
  /** Milliseconds from the last change of the clicks to the map that shows their result. */
  clickToPaintMs: number | null = null;
  /** Milliseconds from the start of the page to the picture, or the places. */
  pictureMs: number | null = null;
  workerMs: number | null = null;
  kernel = "";
  readonly pictures = new Pictures();
  readonly #painter: Painter;
  readonly #client: Client;
  #searching: Promise<void> | null = null;
  /** Groupings that the worker has not answered. */
  #grouping = 0;
  /** Classes from before them. */
  #named: Named | null = null;
  #again = false;
  #loaded = false;

  constructor(
    readonly site: Site,
    readonly base: URL,
    readonly store: Store,
    readonly reports: Reports,
    readonly places: Places | null,
    plain: boolean,
    readonly ground: Ground = groundOf(site, places),
  ) {
    this.sprites = new SpriteSheets(site, base);
    this.#client = new Client(new URL("worker.js", base), (share) => reports.progress(share));
    const target = document.getElementById("map") as HTMLElement;
    const tiles = site.base_map?.url ?? null;
    this.view = new MapView(target, projectionOf(site), ground, tiles, store.state.at);
    const count = places?.id.length ?? 0;
    this.#painter = new Painter(this.view, ground, this.pictures, this.results, count);
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
    await this.pictures.load(site, base, () => this.paint());
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
      if (this.results.scores.length) this.reports.status("The search is cleared.");
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

  /** Say something after what a search says. */
  async notice(text: string): Promise<void> {
    await this.#searching;
    this.reports.status(text);
  }

  async #top(): Promise<void> {
    if (!this.results.scores[this.layer]) return;
    this.results.top = await this.#client.call("top", this.topRequest);
    this.paint();
    this.reports.updated();
  }

  /** The class of each vector of each layer, unless there are none or they are being made. */
  get classes(): Uint8Array[] | null {
    return this.#grouping ? null : this.results.classes;
  }

  /** Make so many classes; they keep names where these can be told. */
  regroup(classes: number): void {
    const { state } = this;
    const names = classes === state.classes ? state.names : [];
    if (this.classes) {
      this.#named = { classes: this.classes, count: state.classes, names: state.names };
    }
    this.store.set({ classes, names, view: "classes" });
  }

  async group(): Promise<void> {
    const k = this.state.classes;
    this.reports.status(`Grouping into ${k} classes.`);
    this.#grouping++;
    const classes = await this.#client.call("classes", { k }).finally(() => {
      this.#grouping--;
    });
    if (k !== this.state.classes) return;
    const named = this.#named;
    this.#named = null;
    this.results.classes = classes;
    if (named && !this.state.names.length) {
      this.store.set({ names: keptNames(named, classes, k) });
    }
    this.reports.status(`Grouped into ${k} classes.`);
    this.paint();
    this.reports.updated();
  }

  async #change(): Promise<void> {
    this.results.change ??= await this.#client.call("change", null);
    this.paint();
    this.reports.updated();
  }

  paint(): void {
    const layers = this.swiping ? [0, 1] : [this.layer];
    this.#painter.paint(this.state, layers, this.#loaded);
  }

  /** Put the cursor on a vector, or take it away. */
  setCursor(click: Click | null): void {
    this.#painter.setCursor(click);
  }
}

function groundOf(site: Site, places: Places | null): Ground {
  const projection = projectionOf(site);
  if (places) return new TableGround(places, projection);
  const { grid } = site.layers[0];
  if (!grid) throw new SiteError("explore.json has a map without a grid.");
  return new GridGround(grid, projection);
}
