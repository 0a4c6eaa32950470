"""A pretraining run read from a TOML file: keys and types checked, paths made absolute."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from rs_embed.errors import CheckpointError, SpecError, UnknownNameError
from rs_embed.models.weights import is_remote_or_shipped
from rs_embed.training.config import PretrainConfig

_T = TypeVar("_T")


def read_config(path: Path, *, data: Path | None = None) -> PretrainConfig:
    """Return the run that a TOML file states; its paths are made absolute.

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
    """
    try:
        stated = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise SpecError(f"cannot read {path}: {exc}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise SpecError(f"{path} is not TOML: {exc}") from exc
    try:
        config = _built(PretrainConfig, stated, "")
    except UnknownNameError:
        raise
    except (SpecError, CheckpointError) as exc:
        raise SpecError(f"{path}: {exc}") from exc
    here = path.resolve().parent
    root = here if data is None else data.expanduser().resolve()
    sources = tuple(replace(one, path=_within(root, one.path)) for one in config.data.sources)
    initial = config.initial
    if initial is not None and not is_remote_or_shipped(initial, here):
        initial = _within(here, initial)
    return replace(
        config,
        data=replace(config.data, sources=sources),
        run=replace(config.run, folder=str(Path(_within(here, config.run.folder)).resolve())),
        initial=initial,
    )


def _within(folder: Path, stated: str) -> str:
    try:
        return str(folder / Path(stated).expanduser())
    except RuntimeError as exc:
        raise SpecError(f"got the path {stated!r}, whose home folder is not known") from exc


def _built(kind: type[_T], stated: Any, where: str) -> _T:
    """Return the dataclass of ``kind`` that a TOML table states, types checked."""
    if not isinstance(stated, Mapping):
        raise SpecError(f"got {where} = {stated!r}, expected a table")
    hints = get_type_hints(kind)
    names = {one.name for one in fields(cast(Any, kind))}
    for name in stated:
        if name not in names:
            raise UnknownNameError.among(f"key of [{where or 'the file'}]", name, names)
    values = {
        name: _value(hints[name], value, f"{where}.{name}".lstrip("."))
        for name, value in stated.items()
    }
    try:
        return kind(**values)
    except TypeError as exc:  # a missing value: dataclasses name it
        missing = str(exc).partition("missing ")[2] or str(exc)
        raise SpecError(f"[{where or 'the file'}] lacks {missing}") from exc


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        return _built(cast(Any, hint), value, where)
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        repeated = inner[-1] is Ellipsis
        if not isinstance(value, list) or not (repeated or len(value) == len(inner)):
            wanted = "a list" if repeated else f"a list of {len(inner)}"
            raise SpecError(f"got {where} = {value!r}, expected {wanted}")
        kinds = [inner[0]] * len(value) if repeated else inner
        return tuple(_value(kind, one, where) for kind, one in zip(kinds, value, strict=True))
    kinds = get_args(hint) or (hint,)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"got {where} = {value!r}, expected a finite number")
    if isinstance(value, kinds) and isinstance(value, bool) == (bool in kinds):
        return value
    wanted = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
    raise SpecError(f"got {where} = {value!r}, expected {wanted}")
