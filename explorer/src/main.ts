/** Starts the page. */

import { byId } from "./dom";
import { Explorer, type Reports } from "./explorer";
import { SiteError } from "./format";
import { readPlaces, readSite } from "./loading";
import { Panels } from "./panels";
import { fromHash, idsOf, toHash, unknownClicks } from "./permalink";
import { Pointing } from "./pointing";
import { Readout } from "./readout";
import { Store, viewsOf } from "./state";
import "./explorer.css";

let panels: Panels | undefined;
let readout: Readout | undefined;
let link = (): string => "";
let fading = 0;

const reports: Reports = {
  problem(error) {
    const text = error instanceof SiteError ? error.message : `The page failed: ${String(error)}`;
    byId("problem").textContent = text;
    byId("problem").hidden = false;
    byId("progress").hidden = true;
    byId("status").textContent = "";
  },
  status(text) {
    const status = byId("status");
    status.textContent = text;
    // It does not stay in front of the map.
    status.classList.remove("old");
    clearTimeout(fading);
    fading = window.setTimeout(() => status.classList.add("old"), 5000);
  },
  progress(share) {
    byId("progress").hidden = share === null;
    if (share !== null) byId<HTMLProgressElement>("progress").value = share;
  },
  updated() {
    panels?.update();
    readout?.update();
  },
};

/** Allow pictures of one host, that of the base map, where there is one. */
function allowImagesOf(url: string | undefined): void {
  let host = "";
  if (url) {
    // A host may have a choice of names: https://{a-c}.tile.example.org/{z}/{x}/{y}.png
    const found = /^(https?:\/\/)([^/]+)/.exec(url);
    if (!found) throw new SiteError(`the base map “${url}” is not a web address.`);
    host = found[1] + found[2].replace(/^[^.]*\{[^}]*\}[^.]*/, "*");
  }
  const meta = document.createElement("meta");
  meta.httpEquiv = "Content-Security-Policy";
  meta.content = `img-src 'self' blob: data: ${host}`;
  document.head.append(meta);
}

function wireHeader(): void {
  const help = byId<HTMLDialogElement>("help-text");
  byId("help").onclick = () => help.showModal();
  addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLInputElement && event.target.type === "text";
    if (event.key === "?" && !typing) help.showModal();
  });
  byId("theme").onclick = () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const root = document.documentElement;
    const shown = root.dataset.theme ?? (dark ? "dark" : "light");
    root.dataset.theme = shown === "dark" ? "light" : "dark";
  };
  byId("link").onclick = async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      reports.status("The link is copied.");
    } catch {
      reports.status("The link is in the address bar.");
    }
  };
}

/** Say which places of a link are not here. */
async function missing(explorer: Explorer, unknown: string[]): Promise<void> {
  if (!unknown.length) return;
  const some = unknown.slice(0, 3).join(", ") + (unknown.length > 3 ? ", …" : "");
  const what = unknown.length > 1 ? `${unknown.length} places` : "a place";
  await explorer.notice(
    `The link has ${what} that ${unknown.length > 1 ? "are" : "is"} not here: ${some}.`,
  );
}

async function start(): Promise<Explorer> {
  wireHeader();
  const base = new URL(".", document.baseURI);
  const site = await readSite(base);
  allowImagesOf(site.base_map?.url);
  const counts = site.layers.map(({ count }) => count);
  const places = await readPlaces(site, base);
  const ids = idsOf(places);
  const store = new Store(fromHash(location.hash, counts, ids), viewsOf(site));
  link = () => toHash(store.state, ids);
  const plain = new URLSearchParams(location.search).get("kernel") === "js";
  const explorer = new Explorer(site, base, store, reports, places, plain);
  readout = new Readout(explorer);
  const pointing = new Pointing(explorer, readout);
  panels = new Panels(explorer, (click) => pointing.go(click));
  panels.update();
  let later = 0;
  store.listen(() => {
    clearTimeout(later);
    later = window.setTimeout(() => history.replaceState(null, "", link()), 150);
  });
  addEventListener("hashchange", () => {
    const hash = location.hash;
    const state = fromHash(hash, counts, ids);
    store.replace(state);
    if (state.at) explorer.view.look(state.at);
    void missing(explorer, unknownClicks(hash, counts, ids));
  });
  const unknown = unknownClicks(location.hash, counts, ids);
  await explorer.ready;
  await missing(explorer, unknown);
  return explorer;
}

const started = start();
started.catch(reports.problem);
let explorer: Explorer | undefined;
started.then(
  (made) => {
    explorer = made;
  },
  () => {},
);

/** For tests and notebooks: what the page shows, to be read only. */
const readable = {
  ready: started.then(() => {}),
  get busy() {
    return explorer?.busy ?? true;
  },
  /** Resolves when every question so far is answered and painted. */
  async settled() {
    await started;
    while (explorer?.busy ?? true) await new Promise((next) => setTimeout(next, 5));
  },
  get kernel() {
    return explorer?.kernel;
  },
  /** The hash of what is shown, which the address has a moment later. */
  get link() {
    return explorer ? link() : null;
  },
  get similarity() {
    return explorer?.results.scores[explorer.layer] ?? null;
  },
  get top() {
    return explorer ? [...explorer.results.top] : [];
  },
  get classes() {
    return explorer?.results.classes ?? null;
  },
  get change() {
    return explorer?.results.change ?? null;
  },
  get clickToPaintMs() {
    return explorer?.clickToPaintMs ?? null;
  },
  get workerMs() {
    return explorer?.workerMs ?? null;
  },
  get pictureMs() {
    return explorer?.pictureMs ?? null;
  },
  /** Pixel of a vector within the map element. */
  pixelOf(layer: number, index: number) {
    return explorer?.view.map.getPixelFromCoordinate(explorer.ground.point(layer, index)) ?? null;
  },
};
readable.ready.catch(() => {});
Object.defineProperty(window, "rsEmbedExplorer", { value: Object.freeze(readable) });
