/** Reading files of the site; every failure names the file and what to do. */

import { checkedSite, type Places, type Site, SiteError } from "./format";

async function opened(url: URL): Promise<Response> {
  const name = url.pathname.split("/").slice(-2).join("/");
  let response: Response;
  try {
    response = await fetch(url);
  } catch {
    throw new SiteError(
      url.protocol === "file:"
        ? "Browsers do not let a page that was opened from a file read the data beside it. Use " +
            "rs-embed explore --serve, or any file server: python -m http.server in this folder."
        : `${name} cannot be read: the server does not answer.`,
    );
  }
  if (!response.ok) {
    throw new SiteError(
      `${name} cannot be read (HTTP ${response.status}): copy the whole folder of the site.`,
    );
  }
  return response;
}

/** Read a file into `target`, which must be filled exactly. */
export async function readInto(
  url: URL,
  target: Uint8Array,
  progress: (bytes: number) => void = () => {},
): Promise<void> {
  const response = await opened(url);
  let at = 0;
  if (response.body) {
    const reader = response.body.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (at + part.value.length <= target.length) target.set(part.value, at);
      at += part.value.length;
      progress(at);
    }
  }
  if (at !== target.length) {
    const name = url.pathname.split("/").slice(-2).join("/");
    throw new SiteError(
      `${name} has ${at} bytes, explore.json says ${target.length}: the copy is incomplete, ` +
        "or page and data are of different runs. Copy the folder again.",
    );
  }
}

async function readJson(url: URL): Promise<unknown> {
  const response = await opened(url);
  try {
    return await response.json();
  } catch {
    throw new SiteError(`${url.pathname.split("/").pop()} is not valid JSON: copy it again.`);
  }
}

export async function readSite(base: URL): Promise<Site> {
  return checkedSite(await readJson(new URL("explore.json", base)));
}

/** Return the places of a table, or null for a map. */
export async function readPlaces(site: Site, base: URL): Promise<Places | null> {
  if (!site.places) {
    if (site.kind === "map") return null;
    throw new SiteError("explore.json names no places.json.");
  }
  const { count } = site.layers[0];
  const places = (await readJson(new URL(site.places, base))) as Places;
  for (const column of [
    places.id,
    places.lon,
    places.lat,
    ...Object.values(places.columns ?? {}),
  ]) {
    if (!Array.isArray(column) || column.length !== count) {
      throw new SiteError(
        `a column of places.json has ${column?.length ?? 0} values, explore.json says ${count}: copy the folder again.`,
      );
    }
  }
  return places;
}

export async function readImage(url: URL): Promise<HTMLImageElement> {
  const image = new Image();
  image.src = url.href;
  try {
    await image.decode();
  } catch {
    const name = url.pathname.split("/").slice(-2).join("/");
    throw new SiteError(
      `${name} is missing or is not a picture: copy the whole folder of the site.`,
    );
  }
  return image;
}
