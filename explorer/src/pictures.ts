/** The pictures of the site: what the model saw, and colours of the principal components. */

import { packed } from "./colours";
import type { Site } from "./format";
import { readImage, readInto } from "./loading";
import type { Picture } from "./mapview";

export class Pictures {
  /** What the model saw of each layer. */
  readonly images: (Picture | undefined)[] = [];
  readonly pcas: (Picture | undefined)[] = [];
  /** The colours of a table's places. */
  places: Uint32Array | null = null;

  /** Read them in turn; `each` is called as soon as one is there. */
  async load(site: Site, base: URL, each: () => void): Promise<void> {
    if (site.pca_colours) {
      const bytes = new Uint8Array(3 * site.layers[0].count);
      await readInto(new URL(site.pca_colours, base), bytes);
      this.places = Uint32Array.from({ length: bytes.length / 3 }, (_, i) =>
        packed(bytes[3 * i], bytes[3 * i + 1], bytes[3 * i + 2]),
      );
    }
    for (const [i, { image, pca, grid }] of site.layers.entries()) {
      if (image) {
        const source = await readImage(new URL(image.file, base));
        const [left, bottom, right, top] = image.bounds;
        const [w, h] = [(right - left) / source.width, (bottom - top) / source.height];
        this.images[i] = { source, transform: [w, 0, left, 0, h, top], smooth: true, opacity: 1 };
        each();
      }
      if (pca && grid) {
        const source = await readImage(new URL(pca, base));
        this.pcas[i] = { source, transform: grid.transform, smooth: false, opacity: 1 };
        each();
      }
    }
  }

  /** The picture below thumbnails: what the model saw, or the colours of the principal components. */
  of(layer: number): Picture | undefined {
    return this.images[layer] ?? this.pcas[layer];
  }
}
