/** The map: pictures on their exact grid, places, marks and a cursor, drawn on one canvas. */

import ScaleLine from "ol/control/ScaleLine";
import { defaults } from "ol/interaction/defaults";
import Layer from "ol/layer/Layer";
import TileLayer from "ol/layer/Tile";
import OlMap, { type FrameState } from "ol/Map";
import type { Projection } from "ol/proj";
import XYZ from "ol/source/XYZ";
import View from "ol/View";
import type { Affine } from "./format";
import { apply, type Extent, type Ground, type Point, TableGround } from "./ground";
import { drawPoints } from "./points";
import "ol/ol.css";

export interface Picture {
  source: HTMLImageElement | HTMLCanvasElement;
  /** From pixels of the picture to coordinates. */
  transform: Affine;
  smooth: boolean;
  opacity: number;
}

export interface Side {
  pictures: Picture[];
  colours: Uint32Array | null;
  order: Uint32Array | null;
}

export interface Mark {
  point: Point;
  kind: "positive" | "negative" | "hit";
}

class CanvasLayer extends Layer {
  constructor(readonly draw: (frame: FrameState) => HTMLCanvasElement) {
    super({});
  }
  override getSourceState(): "ready" {
    return "ready";
  }
  override render(frame: FrameState | null): HTMLElement {
    return frame ? this.draw(frame) : document.createElement("canvas");
  }
}

const context2d = (canvas: HTMLCanvasElement): CanvasRenderingContext2D =>
  canvas.getContext("2d") as CanvasRenderingContext2D;

export class MapView {
  readonly map: OlMap;
  sides: Side[] = [];
  swipe: number | null = null;
  marks: Mark[] = [];
  cursor: Point | null = null;
  cursorCorners: Point[] | null = null;
  readonly #canvas = document.createElement("canvas");
  readonly #points = document.createElement("canvas");
  readonly #ground: Ground;

  constructor(
    target: HTMLElement,
    projection: Projection,
    ground: Ground,
    baseMap: string | null,
    at: [number, number, number] | null,
  ) {
    this.#ground = ground;
    const [left, bottom, right, top] = ground.extent;
    this.#canvas.style.position = "absolute";
    const layers: Layer[] = [new CanvasLayer((frame) => this.#draw(frame))];
    if (baseMap) {
      const source = new XYZ({ url: baseMap, crossOrigin: "anonymous", transition: 0 });
      layers.unshift(new TileLayer({ source }));
    }
    this.map = new OlMap({
      target,
      layers,
      // The arrow keys move the cursor of this page instead.
      interactions: defaults({ keyboard: false, doubleClickZoom: false }),
      controls: projection.getUnits() === "pixels" ? [] : [new ScaleLine({ minWidth: 90 })],
      view: new View({
        projection,
        center: [(left + right) / 2, (bottom + top) / 2],
        resolution: Math.max(right - left, top - bottom) / 500,
        minResolution: ground.closest / 8,
        maxResolution: Math.max(right - left, top - bottom) / 100,
        extent: ground.extent,
        constrainOnlyCenter: true,
        enableRotation: false,
        smoothExtentConstraint: false,
      }),
    });
    if (at) this.look(at);
    else this.whole(0);
  }

  get at(): [number, number, number] {
    const view = this.map.getView();
    return [...(view.getCenter() as Point), view.getResolution() ?? 1];
  }

  look([x, y, resolution]: [number, number, number]): void {
    this.map.getView().setCenter([x, y]);
    this.map.getView().setResolution(resolution);
  }

  whole(duration = 300): void {
    this.map.getView().fit(this.#ground.extent as Extent, { padding: [16, 16, 16, 16], duration });
  }

  zoom(steps: number): void {
    const view = this.map.getView();
    view.animate({ zoom: (view.getZoom() ?? 0) + steps, duration: 150 });
  }

  fly(point: Point): void {
    const view = this.map.getView();
    const resolution = Math.min(view.getResolution() ?? 1, this.#ground.closest * 4);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    view.animate({ center: point, resolution, duration: still ? 0 : 400 });
  }

  /** Bring a point into view, without a change of scale. */
  reveal(point: Point): void {
    const pixel = this.map.getPixelFromCoordinate(point);
    const [width, height] = this.map.getSize() ?? [0, 0];
    const out =
      pixel && (pixel[0] < 20 || pixel[1] < 20 || pixel[0] > width - 20 || pixel[1] > height - 20);
    if (out) this.map.getView().setCenter(point);
  }

  render(): void {
    this.map.render();
  }

  #draw(frame: FrameState): HTMLCanvasElement {
    const canvas = this.#canvas;
    const ratio = frame.pixelRatio;
    const [width, height] = frame.size.map((side) => Math.round(side * ratio));
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
      canvas.style.width = `${frame.size[0]}px`;
      canvas.style.height = `${frame.size[1]}px`;
    }
    const context = context2d(canvas);
    const [a, b, c, d, e, f] = frame.coordinateToPixelTransform.map((v) => v * ratio);
    // OpenLayers has columns in turn, our affine rows.
    const view: Affine = [a, c, e, b, d, f];
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    const divide = this.sides.length > 1 && this.swipe !== null ? this.swipe * width : width;
    this.sides.forEach((side, i) => {
      context.save();
      context.beginPath();
      context.rect(i ? divide : 0, 0, i ? width - divide : divide, height);
      context.clip();
      for (const picture of side.pictures) drawPicture(context, picture, view);
      if (side.colours && this.#ground instanceof TableGround) {
        this.#drawPoints(context, side, view, ratio);
      }
      context.restore();
    });
    if (divide < width) {
      for (const [line, colour] of [
        [4, "rgb(0 0 0 / 50%)"],
        [2, "#fff"],
      ] as const) {
        context.fillStyle = colour;
        context.fillRect(divide - (line * ratio) / 2, 0, line * ratio, height);
      }
    }
    this.#drawMarks(context, view, ratio, divide);
    return canvas;
  }

  #drawPoints(context: CanvasRenderingContext2D, side: Side, view: Affine, ratio: number): void {
    const { width, height } = this.#canvas;
    Object.assign(this.#points, { width, height });
    const { points } = this.#ground as TableGround;
    const resolution = this.map.getView().getResolution() ?? 1;
    const radius = Math.max(
      1.5,
      Math.min(7, 2 + Math.log2((64 * this.#ground.closest) / resolution)),
    );
    drawPoints(
      context2d(this.#points),
      points,
      side.colours as Uint32Array,
      side.order,
      view,
      radius * ratio,
    );
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(this.#points, 0, 0);
  }

  #drawMarks(context: CanvasRenderingContext2D, view: Affine, ratio: number, divide: number): void {
    const stroke = (width: number, colour: string): void => {
      context.lineWidth = width * ratio;
      context.strokeStyle = colour;
      context.stroke();
    };
    for (const { point, kind } of this.marks) {
      const [x, y] = apply(view, ...point);
      // Hits are of the first layer.
      if (kind === "hit" && x > divide) continue;
      context.beginPath();
      context.arc(x, y, (kind === "hit" ? 6 : 9) * ratio, 0, 2 * Math.PI);
      if (kind === "hit") {
        stroke(3.5, "rgb(0 0 0 / 60%)");
        stroke(1.5, "#fff");
        continue;
      }
      context.fillStyle = kind === "positive" ? "#fff" : "#111";
      context.fill();
      stroke(2, kind === "positive" ? "#111" : "#fff");
      context.beginPath();
      context.moveTo(x - 4 * ratio, y);
      context.lineTo(x + 4 * ratio, y);
      if (kind === "positive") {
        context.moveTo(x, y - 4 * ratio);
        context.lineTo(x, y + 4 * ratio);
      }
      stroke(2, kind === "positive" ? "#111" : "#fff");
    }
    if (!this.cursor) return;
    const [x, y] = apply(view, ...this.cursor);
    context.beginPath();
    const corners = (this.cursorCorners ?? []).map((corner) => apply(view, ...corner));
    if (
      corners.length &&
      Math.hypot(corners[0][0] - corners[1][0], corners[0][1] - corners[1][1]) > 8
    ) {
      for (const [u, v] of corners) context.lineTo(u, v);
      context.closePath();
    } else {
      context.rect(x - 8 * ratio, y - 8 * ratio, 16 * ratio, 16 * ratio);
    }
    stroke(4, "rgb(0 0 0 / 70%)");
    stroke(2, "#ffd60a");
  }
}

type Source = Picture["source"];
const halves = new WeakMap<Source, HTMLCanvasElement>();

/** Return a picture at half its size, made once: large ones are slow to draw small. */
function half(source: Source): HTMLCanvasElement {
  let canvas = halves.get(source);
  if (!canvas) {
    canvas = document.createElement("canvas");
    canvas.width = Math.ceil(source.width / 2);
    canvas.height = Math.ceil(source.height / 2);
    context2d(canvas).drawImage(source, 0, 0, canvas.width, canvas.height);
    halves.set(source, canvas);
  }
  return canvas;
}

function drawPicture(context: CanvasRenderingContext2D, picture: Picture, view: Affine): void {
  const [a, b, c, d, e, f] = picture.transform;
  const [p, q, , r, s] = view;
  const [x, y] = apply(view, c, f);
  context.setTransform(p * a + q * d, r * a + s * d, p * b + q * e, r * b + s * e, x, y);
  // Pixels that are larger than those of the screen are shown as they are.
  const size = Math.hypot(p * a + q * d, r * a + s * d);
  context.imageSmoothingEnabled = picture.smooth ? size < 3 : size < 1;
  context.globalAlpha = picture.opacity;
  let source = picture.source;
  const { width, height } = source;
  for (let scale = size; picture.smooth && scale < 0.5; scale *= 2) source = half(source);
  context.drawImage(source, 0, 0, width, height);
  context.globalAlpha = 1;
  context.setTransform(1, 0, 0, 1, 0, 0);
}
