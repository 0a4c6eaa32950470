"""The package as a whole: what importing it costs, what it exports, how others extend it."""

from __future__ import annotations

import ast
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import rs_embed
from rs_embed import errors
from rs_embed.errors import MissingDependencyError, ModelError, UnknownNameError
from rs_embed.registry import find_model, list_models
from tests.conftest import python_environment
from tests.processes import completed

HEAVY = ("torch", "rasterio", "xarray", "rioxarray", "ee", "numpy", "pyproj", "PIL", "typer")


def test_import_loads_nothing_heavy() -> None:
    code = f"import sys, rs_embed; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = completed("-c", code, fresh=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_vector_from_an_array_loads_no_raster_library(checkpoint: Path) -> None:
    code = textwrap.dedent(f"""
        import sys, numpy, rs_embed
        rs_embed.get_embedding(
            "scalemae", input_chw=numpy.full((3, 32, 32), 900), weights={str(checkpoint)!r},
            fetch=rs_embed.FetchSpec(scale_m=10), image_size=256,
        )
        print(*[m for m in ("rasterio", "xarray", "pyproj", "torchvision") if m in sys.modules])
    """)
    done = completed("-c", code, env=python_environment(HF_HUB_OFFLINE="1"), fresh=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_all_is_sorted_and_everything_in_it_exists() -> None:
    assert rs_embed.__all__ == sorted(rs_embed.__all__)
    for name in rs_embed.__all__:
        assert getattr(rs_embed, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        rs_embed.nonsense  # noqa: B018


def test_type_checkers_see_the_same_names_as_users() -> None:
    tree = ast.parse(Path(rs_embed.__file__).read_text())
    (block,) = [n for n in tree.body if isinstance(n, ast.If)]
    seen = {alias.asname for node in block.body for alias in node.names}  # type: ignore[attr-defined]
    assert seen | {"__version__"} == set(rs_embed.__all__)


def test_every_error_and_warning_is_public_and_drawn() -> None:
    drawn = errors.__doc__ or ""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.RsEmbedError | errors.RsEmbedWarning)
    ]
    assert len(kinds) > 12
    assert {kind.__name__ for kind in kinds} == set(errors.__all__)
    for kind in kinds:
        assert kind.__name__ in drawn
        assert kind.__name__ in rs_embed.__all__


def test_alias_is_the_same_model_and_not_listed_twice() -> None:
    assert find_model("scalemae") is find_model("scalemae_rgb")
    assert list_models().count("scalemae") == 1
    assert "scalemae_rgb" not in list_models()
    aliases = {p.name for p in entry_points(group="rs_embed.models")} - set(list_models())
    assert aliases == set(find_model("scalemae").description.aliases)


def test_unknown_model_names_its_near_matches() -> None:
    with pytest.raises(UnknownNameError, match="'scalmae'.*did you mean 'scalemae'"):
        find_model("scalmae")


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another distribution, on disk, that registers models: a good one and broken ones."""
    (tmp_path / "othermodels.py").write_text(
        textwrap.dedent("""
        from dataclasses import replace
        from rs_embed.models.scalemae.model import ScaleMaeModel

        class Mine(ScaleMaeModel):
            description = replace(ScaleMaeModel.description, id="mine", aliases=())

        MODEL = Mine()
        NOT_A_MODEL = 7
    """)
    )
    info = tmp_path / "othermodels-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: othermodels\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[rs_embed.models]\nmine = othermodels:MODEL\nodd = othermodels:NOT_A_MODEL\n"
        "scalemae = othermodels:MODEL\n"
        "gone = othermodels_missing:MODEL\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_package_installed_meanwhile_is_found(install: Callable[..., Path]) -> None:
    folder = install("first", "[rs_embed.models]\nfirst = first:MODEL\n")
    assert "first" in list_models()
    shutil.move(folder / "first-1.0.dist-info", folder / "second-1.0.dist-info")
    written = folder / "second-1.0.dist-info" / "entry_points.txt"
    written.write_text("[rs_embed.models]\nsecond = second:MODEL\n")
    assert {"first", "second"} & set(list_models()) == {"second"}


@pytest.mark.usefixtures("other_package")
def test_another_package_adds_a_model(checkpoint: Path) -> None:
    import numpy as np

    assert "mine" in list_models()
    assert rs_embed.describe_model("mine")["id"] == "mine"
    embedding = rs_embed.get_embedding(
        "mine",
        input_chw=np.full((3, 40, 40), 900.0),
        fetch=rs_embed.FetchSpec(scale_m=10),
        weights=str(checkpoint),
        image_size=256,
    )
    assert embedding.meta["model"] == "mine"
    with pytest.raises(ModelError, match=r"'odd'.*is a int"):
        find_model("odd")
    with pytest.raises(MissingDependencyError, match="'gone'.*cannot be imported"):
        find_model("gone")
    assert {"odd", "gone"} <= set(list_models())  # broken ones are shown, and harm no other
    with pytest.raises(UnknownNameError, match="several packages register the model 'scalemae'"):
        find_model("scalemae")


COMMANDS = Path(rs_embed.__file__).parent / "cli"
# The floor that everything shares.
PLUMBING = (
    "cli", "settings", "progress", "errors", "addresses", "printable", "_optional", "_version",
)  # fmt: skip


def private_uses(source: str) -> Iterator[str]:
    """What a module of the command line takes from rs_embed that Python users cannot."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (n.name for n in node.names if n.name.startswith("rs_embed."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rs_embed":
            deep = str(node.module).partition(".")[2]
            if not deep:
                yield from (n.name for n in node.names if n.name not in rs_embed.__all__)
            elif deep.split(".")[0] not in PLUMBING:
                yield str(node.module)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield ast.unparse(node)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "rs_embed":
            yield from {node.attr} - {*rs_embed.__all__}


@pytest.mark.parametrize("path", sorted(COMMANDS.rglob("*.py")), ids=lambda path: path.name)
def test_the_command_line_uses_public_names_only(path: Path) -> None:
    assert list(private_uses(path.read_text())) == []


def test_private_uses_are_found() -> None:
    code = """
        import rs_embed.models.base
        import rs_embed
        from rs_embed import get_embedding, nonsense
        from rs_embed.geo.grid import Grid
        from rs_embed.settings import Settings
        def f():
            from .. import geo
            rs_embed.evaluate, rs_embed.registry
    """
    assert set(private_uses(textwrap.dedent(code))) == {
        "rs_embed.models.base", "nonsense", "rs_embed.geo.grid", "from .. import geo", "registry",
    }  # fmt: skip


def test_documented_names_are_public() -> None:
    root = Path(__file__).parents[1]
    # The page on the architecture is about modules.
    pages = {root / "README.md", *(root / "docs").glob("*.md")} - {root / "docs/architecture.md"}
    found = set()
    for page in pages:
        text = page.read_text()
        for names in re.findall(r"from rs_embed import (\([^)]+\)|[^\n(]+)", text):
            found |= {(page.name, name) for name in re.findall(r"\w+", names.partition("#")[0])}
        found |= {(page.name, n) for n in re.findall(r"(?<![\w/.])rs_embed\.([\w.]*\w)", text)}
        found |= {(page.name, n) for n in re.findall(r"(?:from|import) rs_embed\.([\w.]+)", text)}
    assert len(found) > 20
    # The groups of entry points, and the suites for other packages' models and providers.
    known = {*rs_embed.__all__, "models", "providers"}
    assert {
        (page, name)
        for page, name in found
        if name not in known and not re.fullmatch(r"testing(\.\w+)?", name)
    } == set()
