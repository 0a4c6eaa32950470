"""README and docs are correct: code runs, tables are complete, links resolve."""

from __future__ import annotations

import doctest
import importlib
import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rs_embed import PointBuffer, describe_model, errors
from rs_embed.geo.grid import gsd_m, roi_grid
from rs_embed.geo.tiling import tiles_of
from rs_embed.models.scalemae.config import NetworkConfig
from rs_embed.settings import SCALEMAE_VARIABLES, VARIABLES
from rs_embed.training.config import (
    ColourConfig,
    ContrastConfig,
    DataConfig,
    DecoderConfig,
    DenseConfig,
    OptimiserConfig,
    RunConfig,
    ViewConfig,
)
from rs_embed.training.recipe import read_recipe
from tests.test_grid import ground_extent, ground_pixel

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: (?P<why>.+?) -->\n)?```python\n(?P<code>.*?)```", re.S)


def table(first_header: str) -> dict[str, str]:
    """Rows of the one table with this first header, by their first cell without backticks."""
    (lines,) = [
        page.read_text().splitlines()
        for page in PAGES
        if f"\n| {first_header} |" in page.read_text()
    ]
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_header} |"))
    rows = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows[line.split("|")[1].strip().strip("`")] = line
    return rows


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # of what they write
    (tmp_path / "tests").symlink_to(ROOT / "tests")  # two dates, for docs/tutorial-change.md
    namespace: dict[str, Any] = {}
    for block in BLOCK.finditer(page.read_text()):
        code = compile(block["code"], page.name, "exec")
        if block["why"] is None:
            exec(code, namespace)  # noqa: S102


def test_every_python_block_is_found() -> None:
    for page in PAGES:
        text = page.read_text()
        assert len(list(BLOCK.finditer(text))) == text.count("```python"), page.name
    ran = [block["why"] is None for block in BLOCK.finditer(README)]
    assert ran[0], "the first example runs offline"
    assert sum(ran) >= 3
    assert README.count("\n") <= 160


@pytest.mark.parametrize(
    "module", ["embedding.one_place", "embedding.many_places", "embedding.inspection"]
)
def test_examples_of_docstrings_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"rs_embed.{module}"))
    assert result.attempted >= 2
    assert result.failed == 0


def test_options_table_is_complete() -> None:
    rows = table("option")
    options = {o["name"]: o for o in describe_model("scalemae")["options"]}
    assert rows.keys() == options.keys()
    for name, option in options.items():
        for choice in option["choices"]:
            assert f'"{choice}"' in rows[name]


def test_environment_table_is_complete() -> None:
    rows = table("variable")
    assert list(rows) == [v.name for v in VARIABLES]
    for variable in VARIABLES:
        assert variable.default.split(",")[0] in rows[variable.name].replace("`", "")


def test_errors_table_is_complete() -> None:
    kinds = {
        kind.__name__: kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.RsEmbedError)
    }
    rows = table("error")
    assert rows.keys() == kinds.keys() - {"RsEmbedError"}
    for name, row in rows.items():
        also = re.findall(r"`(\w+)`", row.split("|")[2])
        assert also
        for base in also:
            assert base in [k.__name__ for k in kinds[name].__mro__], (name, base)
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.RsEmbedWarning):
            assert f"`{kind.__name__}`" in (ROOT / "docs" / "errors.md").read_text()


def test_frequent_messages_are_those_of_the_library() -> None:
    package = "".join(path.read_text() for path in (ROOT / "src" / "rs_embed").rglob("*.py"))
    text = re.sub(r'"\s+f?"', "", package)  # literals that are joined
    messages = table("frequent message")
    assert len(messages) >= 10
    for message in messages:
        for part in message.split("..."):
            assert part.strip() in text, message


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            path, _, anchor = target.partition("#")
            linked = page.parent / path if path else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a Markdown page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_figures_of_metres_agree_with_the_library() -> None:
    rows = re.findall(r"^\| ([\d.]+) \|(.+)\|$", (ROOT / "docs" / "metres.md").read_text(), re.M)
    assert [float(lat) for lat, _ in rows] == [0, 31.2, 45, 60, 70, 78, 85]
    for lat, cells in rows:
        place = PointBuffer(lon=121.5, lat=float(lat), buffer_m=2050)
        mercator, metric = roi_grid(place, 10, "EPSG:3857"), roi_grid(place, 10)
        sizes = [math.sqrt(math.prod(ground_pixel(grid))) for grid in (mercator, metric)]
        halves = [math.sqrt(math.prod(ground_extent(grid))) / 2 for grid in (mercator, metric)]
        assert gsd_m(mercator) == pytest.approx(sizes[0], rel=1e-4)
        assert [cell.strip() for cell in cells.split("|")] == [
            f"{sizes[0]:.2f}", f"{halves[0]:.0f}", f"{sizes[1]:.3f}", f"{halves[1]:.1f}",
        ]  # fmt: skip


def test_cost_of_tiles_agrees_with_the_library() -> None:
    page = (ROOT / "docs" / "choosing-settings.md").read_text()
    header = re.search(r"^\| image, px \|(.+)\|$", page, re.M)
    assert header is not None
    tilings = re.findall(r"tile (\d+), overlap (\d+)", header[1])
    assert tilings == [("224", "0"), ("224", "64"), ("256", "0"), ("256", "64")]
    rows = re.findall(r"^\| (\d+) \|((?: \d+ \([\d.]+\) \|)+)$", page, re.M)
    assert [side for side, _ in rows] == ["256", "410", "1000", "2048"]
    for side, cells in rows:
        for (tile, overlap), cell in zip(tilings, cells.split("|"), strict=False):
            size = int(side)
            tiles = tiles_of(
                (size, size), tile_size=int(tile), overlap_px=int(overlap), patch_size=16
            )
            pixels = sum(math.prod(one.window[2:]) for one in tiles)
            assert cell.strip() == f"{len(tiles)} ({pixels / size**2:.2f})", (side, tile, overlap)


@given(st.integers(1, 400), st.integers(1, 40), st.integers(0, 39))
def test_formula_of_tiles_agrees_with_the_library(patches: int, tile: int, overlap: int) -> None:
    overlap = min(overlap, tile - 1)
    stated = 1 if patches <= tile else 1 + math.ceil((patches - tile) / (tile - overlap))
    tiles = tiles_of(
        (16, 16 * patches), tile_size=16 * tile, overlap_px=16 * overlap, patch_size=16
    )
    assert len(tiles) == stated


def test_cost_of_a_forward_agrees_with_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark = importlib.import_module("bench_forward")
    page = (ROOT / "docs" / "choosing-settings.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (\d+) \| ([\d.]+) \|$", page, re.M)
    assert [side for side, _, _ in rows] == ["224", "256", "448", "640"]
    for side, tokens, gflop in rows:
        assert int(tokens) == (int(side) // 16) ** 2
        assert gflop == f"{benchmark.image_gflop(benchmark.CONFIG, int(side)):.1f}"


def test_commands_of_evaluation_use_existing_options() -> None:
    from typer.testing import CliRunner

    from rs_embed.cli import app

    shown = CliRunner().invoke(app, ["evaluate", "--help"], env={"COLUMNS": "200"}).output
    options = set(re.findall(r"(--?[a-z][a-z-]*) ", shown))
    pages = [(ROOT / "docs" / name).read_text() for name in ("command-line.md", "evaluation.md")]
    written = [re.findall(r"rs-embed evaluate [^`\n#]+", page) for page in pages]
    assert [len(lines) for lines in written] == [1, 7]
    for line in [*written[0], *written[1]]:
        assert set(re.findall(r" (--?[a-z][a-z-]*)", line)) <= options, line


@pytest.mark.parametrize("target", ["demo", "test", "lint", "benchmarks"])
def test_make_targets_exist(target: str) -> None:
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


def test_description_is_json_and_names_the_licence() -> None:
    import json

    description = describe_model("scalemae_rgb")
    assert json.loads(json.dumps(description)) == description
    assert description["id"] == "scalemae"
    inputs = description["inputs"]
    assert inputs["collection"] == "COPERNICUS/S2_SR_HARMONIZED"
    assert inputs["bands"] == ["B4", "B3", "B2"]
    assert (inputs["scale_m"], inputs["cloudy_pct"], inputs["composite"]) == (10, 30, "median")
    assert "CC BY-NC 4.0" in description["weights"][0]["licence"]
    assert [v["name"] for v in description["environment"]] == [v.name for v in SCALEMAE_VARIABLES]


def test_every_key_of_a_recipe_is_documented() -> None:
    page = (ROOT / "docs" / "pretraining.md").read_text()
    named: set[str] = set()
    for row in re.findall(r"^\| (`.+?) \|", page.partition("## Keys")[2], re.M):
        table = ""
        for name in re.findall(r"`([\w.]+)`", row):
            table = name.rpartition(".")[0] or table if "." in name else ""
            named.add(f"{table}.{name.rpartition('.')[2]}".lstrip("."))
    sections = {
        "data": DataConfig, "network": NetworkConfig, "decoder": DecoderConfig,
        "views": ViewConfig, "contrast": ContrastConfig, "dense": DenseConfig,
        "colour": ColourConfig, "optimiser": OptimiserConfig, "run": RunConfig,
    }  # fmt: skip
    keys = {f"{name}.{one.name}" for name, kind in sections.items() for one in fields(kind)}
    assert named == keys | {"name", "initial", "image_size", "map_tile_size"}


def test_the_recipe_of_the_docs_can_be_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "pretraining.md").read_text()
    recipe = page.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "run.toml").write_text(recipe)
    assert read_recipe(tmp_path / "run.toml").optimiser.steps == 20000
