"""The explorer page in headless Chromium: from a click to the painted similarity, and memory.

    python benchmarks/bench_explorer.py

Three sites of random vectors: maps of 700 x 700 cells with 192 and 64 dimensions, and a table of
100 000 places with 192. `click` is the median from a click to the map that shows its result, on
this machine with what else runs on it; `busy` is the processor time of all of Chromium per click;
`scores` is the part of the worker that compares all vectors. Needs playwright and chromium.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from measure import arguments, goal, machine
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

SIDE, PLACES = 700, 100_000
CASES = {
    "700 x 700 x 192": (0, 192),
    "700 x 700 x 64": (0, 64),
    "100 000 places x 192": (PLACES, 192),
}
CLICK_MS, PICTURE_S, MEMORY_GB = 150, 2.0, 1.0


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *args: Any) -> None:
        """Print nothing."""


def site(folder: Path, places: int, dimensions: int) -> None:
    """Write a map, or a table of places."""
    shutil.copytree(str(files("rs_embed.explorer") / "page"), folder)
    (folder / "data").mkdir()
    rng = np.random.default_rng(0)
    count = places or SIDE * SIDE
    vectors = rng.integers(-127, 128, (count, dimensions), np.int8)
    (folder / "data/vectors.i8").write_bytes(vectors.tobytes())
    layer: dict[str, Any] = {
        "name": "", "count": count, "vectors": "data/vectors.i8", "cells": None, "grid": None,
        "pca": None, "image": None,
    }  # fmt: skip
    about: dict[str, Any] = {
        "format": 1, "kind": "table" if places else "map", "title": "Benchmark", "model": "",
        "made_with": "", "weights": "", "output": "tokens", "gsd_m": None, "pca_variance": None,
        "dimensions": dimensions, "crs": "EPSG:32633", "base_map": None, "layers": [layer],
        "proj4": "+proj=utm +zone=33 +datum=WGS84 +units=m", "places": None,
        "pca_colours": None, "thumbnails": None,
    }  # fmt: skip
    if places:
        where = {
            "lon": rng.uniform(5, 15, places).tolist(),
            "lat": rng.uniform(45, 55, places).tolist(),
        }
        columns = {"id": list(range(places)), **where, "columns": {}}
        (folder / "data/places.json").write_text(json.dumps(columns))
        (folder / "data/colours.u8").write_bytes(vectors[:, :3].tobytes())
        about |= {"places": "data/places.json", "pca_colours": "data/colours.u8"}
    else:
        transform = [160.0, 0.0, 500_000.0, 0.0, -160.0, 5_400_000.0]
        layer["grid"] = {"transform": transform, "rows": SIDE, "columns": SIDE}
        bounds = [500_000.0, 5_400_000.0 - 160 * SIDE, 500_000.0 + 160 * SIDE, 5_400_000.0]
        layer["image"] = {"file": "data/image.jpg", "bounds": bounds}
        coarse = rng.integers(0, 256, (256, 256, 3), np.uint8)
        Image.fromarray(coarse).resize((4096, 4096)).save(folder / "data/image.jpg")
    (folder / "explore.json").write_text(json.dumps(about))


def descendants() -> list[Path]:
    """Return the folders in /proc of all processes that this one has started."""
    parents: dict[int, list[Path]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue  # it has ended
        parents.setdefault(parent, []).append(stat.parent)
    found, left = [], [os.getpid()]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += [int(child.name) for child in children]
    return found


def busy_ms() -> float:
    """Return the processor milliseconds of Chromium so far."""
    ticks = [
        stat.read_text().rsplit(")", 1)[1].split()[11:13]
        for stat in (p / "stat" for p in descendants())
    ]
    return 1000 * sum(int(user) + int(system) for user, system in ticks) / os.sysconf("SC_CLK_TCK")


def page_gb() -> float:
    """Return the memory of the page's process."""
    pages = [p for p in descendants() if "--type=renderer" in (p / "cmdline").read_text()]
    sizes = [int((p / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") for p in pages]
    return max(sizes) / 1e9


def measured(browser: Browser, url: str, clicks: int) -> dict[str, float]:
    """Open a page, click, and return the figures."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(url)
    page.evaluate("rsEmbedExplorer.ready")
    rng = np.random.default_rng(1)
    times, scores = [], []
    for i in range(clicks + 1):
        before = busy_ms()
        x, y = rng.uniform(150, 650, 2)
        page.mouse.click(x, y)
        page.evaluate("rsEmbedExplorer.settled()")
        if i:  # the first one warms up
            times.append(page.evaluate("rsEmbedExplorer.clickToPaintMs"))
            scores.append((page.evaluate("rsEmbedExplorer.workerMs"), busy_ms() - before))
    figures = {
        "click": statistics.median(times),
        "best": min(times),
        "scores": statistics.median(own for own, _ in scores),
        "busy": statistics.median(busy for _, busy in scores),
        "picture": page.evaluate("rsEmbedExplorer.pictureMs") / 1000,
        "memory": page_gb(),
    }
    page.close()
    return figures


def main() -> None:
    """Print the table."""
    options = arguments(__doc__, repeats=15).parse_args()
    print(machine())
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    rows = {}
    with tempfile.TemporaryDirectory() as root, sync_playwright() as playwright:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=root))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for i, (name, case) in enumerate(CASES.items()):
            site(Path(root) / str(i), *case)
            browser = playwright.chromium.launch(executable_path=chromium, args=sandbox)
            rows[name] = measured(
                browser, f"http://127.0.0.1:{server.server_port}/{i}/", options.repeats
            )
            browser.close()
        server.shutdown()
    print("| case | click, ms | best, ms | scores, ms | busy, ms | picture, s | memory, GB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        print(
            f"| {name} | {row['click']:.0f} | {row['best']:.0f} | {row['scores']:.0f} | "
            f"{row['busy']:.0f} | {row['picture']:.1f} | {row['memory']:.2f} |"
        )
    worst = {key: max(row[key] for row in rows.values()) for key in ("click", "picture", "memory")}
    print()
    print(goal(f"click to painted map at most {CLICK_MS} ms", worst["click"] <= CLICK_MS))
    print(goal(f"picture within {PICTURE_S:.0f} s", worst["picture"] <= PICTURE_S))
    print(goal(f"page memory at most {MEMORY_GB:.0f} GB", worst["memory"] <= MEMORY_GB))


if __name__ == "__main__":
    main()
