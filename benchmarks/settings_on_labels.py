"""Accuracy on labels by setting: display, pooling, GSD and tokens, changed one at a time.

    python benchmarks/settings_on_labels.py eurosat.tar.xz [--gsd-m 10] [--weights NAME] [--limit N]

k-NN accuracy at full resolution. The images are true-colour pictures, that is ``display="visual"``;
``display="reflectance"`` is simulated by scaling 0..255 to 0..76, that is reflectance 0..0.3.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import arguments, machine, table
from PIL import Image

from rs_embed.datasets.samples import read_samples
from rs_embed.evaluation import EvaluationReport, evaluate

POOLINGS = ("mean", "max", "cls")
Settings = dict[str, Any]
CASES: dict[str, Settings] = {
    'gsd="metres", normed': {},
    'gsd="relative"': {"gsd": "relative"},
    "gsd=1": {"gsd": 1.0},
    'tokens="pre_norm"': {"tokens": "pre_norm"},
}


def darkened(sources: Sequence[Path], folder: Path, gsd_m: float) -> Path:
    """Write the images as in ``display="reflectance"``; return their folder."""
    rows = []
    for place, source in enumerate(sources):
        for sample in read_samples(source, gsd_m=gsd_m):
            path = folder / str(place) / Path(sample.name).with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((sample.image * 0.3).astype("uint8")).save(path, compress_level=1)
            rows.append([path.relative_to(folder), sample.label, sample.split])
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "class", "split"], *rows])
    return folder


def _row(name: str, report: EvaluationReport) -> list[str]:
    found = {row.pooling: row for row in report.rows if row.pooling is not None}
    return [name, *(f"{found[pooling].accuracy:.3f}" for pooling in POOLINGS)]


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("sources", nargs="+", type=Path, help="labelled sets")
    parser.add_argument("--gsd-m", type=float, default=10.0, help="ground metres per pixel")
    parser.add_argument("--weights", default="scalemae-tiny")
    parser.add_argument("--limit", type=int, help="maximum number of images per class and split")
    options = parser.parse_args()

    def scored(sources: Sequence[Path], settings: Settings) -> EvaluationReport:
        return evaluate(
            sources, gsd_m=options.gsd_m, weights=options.weights, limit=options.limit,
            poolings=POOLINGS, scales=(1,), baselines=False, progress=False, **settings,
        )  # fmt: skip

    with tempfile.TemporaryDirectory() as name:
        dark = darkened(options.sources, Path(name), options.gsd_m)
        reports = {what: scored(options.sources, settings) for what, settings in CASES.items()}
        reports['display="reflectance"'] = scored([dark], {})
    rows = [_row(what, report) for what, report in reports.items()]
    counts = next(iter(reports.values())).rows[0]
    print(f"{options.weights}: {counts.references} references, {counts.queries} queries")
    print(f"({machine()})\n")
    print(table(["k-NN accuracy", *POOLINGS], rows))


if __name__ == "__main__":
    main()
