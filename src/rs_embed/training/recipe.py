"""A pretraining run read from a TOML file: keys and types checked, paths made absolute."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

from rs_embed._optional import require
from rs_embed.addresses import read_document
from rs_embed.errors import CheckpointError, SpecError, UnknownNameError
from rs_embed.models.weights import is_remote_or_shipped
from rs_embed.training.config import PretrainConfig


def read_recipe(path: Path, *, data: Path | None = None) -> PretrainConfig:
    """Return the run that a TOML file describes, with absolute paths.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    data : pathlib.Path, optional
        Folder that the sources' paths are relative to, instead of the file's own.

    Raises
    ------
    SpecError
        If the file cannot be read, a value is missing, of another type or out of range.
    UnknownNameError
        If a table or key does not exist.
    MissingDependencyError
        If pydantic is not installed.
    """
    try:
        stated = tomllib.loads(read_document(path).decode())
    except (OSError, UnicodeDecodeError) as exc:
        raise SpecError(f"cannot read {path}: {exc}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise SpecError(f"{path} is not TOML: {exc}") from exc
    try:
        config = _checked(stated)
    except UnknownNameError:
        raise
    except (SpecError, CheckpointError) as exc:
        raise SpecError(f"{path}: {exc}") from exc
    parent = path.resolve().parent
    root = parent if data is None else data.expanduser().resolve()
    sources = tuple(replace(one, path=_within(root, one.path)) for one in config.data.sources)
    initial = config.initial
    if initial is not None and not is_remote_or_shipped(initial, parent):
        initial = _within(parent, initial)
    return replace(
        config,
        data=replace(config.data, sources=sources),
        run=replace(config.run, folder=str(Path(_within(parent, config.run.folder)).resolve())),
        initial=initial,
    )


def _within(folder: Path, stated: str) -> str:
    try:
        return str(folder / Path(stated).expanduser())
    except RuntimeError as exc:
        raise SpecError(f"got the path {stated!r}, whose home folder is unknown") from exc


def _checked(stated: dict[str, Any]) -> PretrainConfig:
    """Return the run that the tables of a file state, keys and types checked."""
    pydantic = require("pydantic", extra="train", purpose="reading a recipe")
    # Dataclasses take the options of the type around them. As JSON, since a strict tuple then is
    # an array and a strict dataclass a table; no value is a date, and a table is no value either.
    options = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    adapter = pydantic.TypeAdapter(tuple[PretrainConfig], config=options)
    content = json.dumps([stated], default=lambda date: {"date": str(date)})
    try:
        (config,) = adapter.validate_json(content)
    except pydantic.ValidationError as exc:
        raise _error(exc.errors()) from exc
    return cast(PretrainConfig, config)


def _error(problems: Sequence[Mapping[str, Any]]) -> SpecError:
    """Return an error of pydantic as ours; an unknown key first: it may be the missing one."""
    unknown = [one for one in problems if one["type"] == "unexpected_keyword_argument"]
    problem = (unknown or problems)[0]
    location = problem["loc"][1:]
    if unknown:
        *tables, key = location
        return UnknownNameError.among(
            f"key of [{_dotted(tables) or 'the file'}]", key, _keys(tables)
        )
    if problem["type"] == "value_error":
        return cast(SpecError, problem["ctx"]["error"])
    if problem["type"] == "missing":
        return SpecError(f"{_dotted(location)} is missing, and has no default")
    expected = problem["msg"].removeprefix("Input should be ").replace("an object", "a table")
    return SpecError(f"got {_dotted(location)} = {problem['input']!r}, expected {expected}")


def _dotted(location: Iterable[str | int]) -> str:
    keys = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in location)
    return "".join(keys).lstrip(".")


def _keys(tables: Iterable[str | int]) -> list[str]:
    kind: Any = PretrainConfig
    for key in tables:
        kind = get_args(kind)[0] if isinstance(key, int) else get_type_hints(kind)[key]
    return [one.name for one in fields(kind)]
