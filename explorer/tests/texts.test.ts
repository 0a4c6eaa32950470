import assert from "node:assert/strict";
import { test } from "node:test";
import { checkedSite } from "../src/format";
import { csvOf } from "../src/labels";
import { fromHash, idsOf, toHash, unknownClicks } from "../src/permalink";
import { polygonsOf, type Ring } from "../src/polygons";
import { INITIAL, type State, Store } from "../src/state";

const area = (ring: Ring): number =>
  ring.reduce((sum, [x, y], i) => {
    const [u, v] = ring[(i + 1) % ring.length];
    return sum + (x * v - u * y) / 2;
  }, 0);

// Rows of a mask, and the areas of the rings of each polygon.
const MASKS: Record<string, [string[], number[][]]> = {
  "one cell": [["#"], [[1]]],
  "two that touch in a corner": [
    ["#.", ".#"],
    [[1], [1]],
  ],
  "a hole": [["###", "#.#", "###"], [[9, -1]]],
  "two holes that touch": [["####", "#.##", "##.#", "####"], [[16, -1, -1]]],
  "a hole that touches the outer ring": [["###.", "#.#.", "##.."], [[8, -1]]],
  "an island in a hole": [
    ["#####", "#...#", "#.#.#", "#...#", "#####"],
    [[25, -9], [1]],
  ],
  nothing: [["..", ".."], []],
};

for (const [name, [rows, areas]] of Object.entries(MASKS)) {
  test(`polygons of ${name}`, () => {
    const mask = Uint8Array.from(rows.join(""), (cell) => (cell === "#" ? 1 : 0));
    const polygons = polygonsOf(mask, rows.length, rows[0].length);
    assert.deepEqual(
      polygons.map((rings) => rings.map(area)),
      areas,
    );
  });
}

test("a permalink holds the whole state", () => {
  const state: State = {
    view: "classes",
    layer: 1,
    swipe: 0.25,
    opacity: 0.35,
    positives: [
      { layer: 0, index: 0 },
      { layer: 1, index: 41 },
    ],
    negatives: [{ layer: 0, index: 99 }],
    threshold: 0.42,
    k: 50,
    spacing: 7,
    classes: 3,
    names: ["a & b=c#", "", "水 “x”\n"],
    at: [500_000.125, -5_400_000.5, 12.5],
  };
  assert.deepEqual(fromHash(toHash(state), [100, 100]), state);
  assert.deepEqual(fromHash("", [100]), INITIAL);
});

test("what is wrong in a permalink is left out", () => {
  const hash = "#view=x&layer=9&swipe=2&like=5 100 -1 1.5 x&top=1e9&classes=99&at=1 2&name=a";
  assert.deepEqual(fromHash(hash, [100]), { ...INITIAL, positives: [{ layer: 0, index: 5 }] });
});

const tableOf = (id: unknown[]) => ({ id, lon: [], lat: [], columns: {} });

test("a permalink of a table holds ids", () => {
  const [a, b, c] = ["a b@1", "水&#+%", 7];
  const state: State = {
    ...INITIAL,
    positives: [0, 2].map((index) => ({ layer: 0, index })),
    negatives: [{ layer: 0, index: 1 }],
  };
  const hash = toHash(state, idsOf(tableOf([a, b, c])));
  const again = idsOf(tableOf(["new", c, b, a]));
  assert.deepEqual(fromHash(hash, [4], again), {
    ...state,
    positives: [3, 1].map((index) => ({ layer: 0, index })),
    negatives: [{ layer: 0, index: 2 }],
  });
  assert.deepEqual(unknownClicks(hash, [4], again), []);
  const less = idsOf(tableOf([b]));
  assert.deepEqual(fromHash(hash, [1], less).positives, []);
  assert.deepEqual(unknownClicks(hash, [1], less), [a, "7"]);
});

test("ids that do not tell places apart are not in a permalink", () => {
  for (const id of [
    ["a", "a"],
    [7, "7"],
    [null, "x"],
    ["", "x"],
  ]) {
    assert.equal(idsOf(tableOf(id)), null);
  }
  assert.equal(idsOf(null), null);
  assert.deepEqual(unknownClicks("#like=5 6&unlike=7@1 99@1 x", [7, 8], null), ["99@1", "x"]);
});

test("a new search has no threshold, and its end brings the view back", () => {
  const store = new Store({ ...INITIAL, view: "pca" }, ["image", "pca", "similarity"]);
  const at = (index: number) => ({ layer: 0, index });
  const look = () => [store.state.view, store.state.threshold];
  store.click(at(1), "new");
  store.set({ threshold: 0.5 });
  store.click(at(2), "negative");
  assert.deepEqual(look(), ["similarity", 0.5]);
  store.click(at(3), "new");
  assert.deepEqual(look(), ["similarity", null]);
  store.clear();
  assert.deepEqual(look(), ["pca", null]);
  store.click(at(4), "positive");
  store.set({ view: "image" });
  store.clear();
  assert.deepEqual(look(), ["image", null]);
  const linked = new Store({ ...INITIAL, view: "change" }, ["pca", "similarity"]);
  assert.equal(linked.state.view, "pca");
  linked.replace({ ...INITIAL, view: "similarity", positives: [at(1)] });
  linked.remove(linked.state.positives[0]);
  assert.equal(linked.state.view, "pca");
});

test("CSV quotes what needs it", () => {
  const label = ["x", "y", "z"];
  const labels = { ids: ['a"b', 7, "=1,\n"], lon: [], lat: [], layer: null, label };
  assert.equal(csvOf(labels), 'id,label\r\n"a""b",x\r\n7,y\r\n"=1,\n",z\r\n');
  const dates = { ids: null, lon: [1, 2], lat: [3, 4], layer: ["June", "May"], label: ["x", "y"] };
  assert.equal(csvOf(dates), "lon,lat,layer,label\r\n1,3,June,x\r\n2,4,May,y\r\n");
});

test("explore.json that is no site is refused", () => {
  for (const value of [null, [], "x", {}, { format: "1" }, { format: 1 }]) {
    assert.throws(() => checkedSite(value), /rs-embed explore again/);
  }
});
