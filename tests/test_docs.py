"""The README is true: its code runs, its tables are complete."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import pytest

import rs_embed.embedder
from rs_embed import describe_model, errors
from rs_embed.settings import SCALEMAE_VARIABLES, VARIABLES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"(<!-- not run: (?P<why>.+?) -->\n)?```python\n(?P<code>.*?)```", re.S)


def table(first_header: str) -> dict[str, str]:
    """Rows of the table whose first header is given, by their first cell without backticks."""
    lines = README.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_header} |"))
    rows = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows[line.split("|")[1].strip().strip("`")] = line
    return rows


def test_python_blocks_run() -> None:
    blocks = list(BLOCK.finditer(README))
    assert len(blocks) >= 3
    namespace: dict[str, Any] = {}
    ran = 0
    for block in blocks:
        if block["why"] is None:
            exec(compile(block["code"], "README.md", "exec"), namespace)  # noqa: S102
            ran += 1
        else:
            compile(block["code"], "README.md", "exec")
    assert ran >= 2


def test_example_of_get_embedding_runs() -> None:
    result = doctest.testmod(rs_embed.embedder)
    assert result.attempted >= 3
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
            assert f"`{kind.__name__}`" in README


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)h][^)]*)\)", README):
        assert (ROOT / target).exists(), target


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
