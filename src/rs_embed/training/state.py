"""A run's state on disk: everything that the next step depends on, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rs_embed.addresses import check_regular
from rs_embed.errors import CheckpointError, ExportError
from rs_embed.files.writing import written
from rs_embed.training.config import defaults
from rs_embed.training.objective import Objective

_OPTIMISER, _OBJECTIVE, _AVERAGE = "optimiser.", "objective.", "average."
_LISTED = 8


@dataclass
class Training:
    """What a step changes. Random draws and the order of the data depend on the step alone."""

    objective: Objective
    # The encoder with the moving average of the weights; without one, the encoder of `objective`.
    average: nn.Module
    optimiser: torch.optim.Optimizer
    step: int = 0  # updates so far
    seconds: float = 0.0  # time that they took, over all runs


def write_state(path: Path, training: Training, what: Mapping[str, Any]) -> None:
    """Write the state; the file before it stays until the new one is whole.

    ``what`` holds the JSON values that a resumed run must share; see `read_state`.

    Raises
    ------
    ExportError
        If it cannot be written, for instance because the disk is full.
    """
    tensors = {name: value.detach().contiguous() for name, value in _tensors(training)}
    record = {"step": training.step, "seconds": training.seconds, "what": dict(what)}
    with written(path, alone=True) as partial:
        try:
            save_file(tensors, partial, metadata={"training": json.dumps(record)})
        except SafetensorError as exc:
            raise ExportError(
                f"cannot write {path}: {exc}; the state before it is kept. Free some space and "
                "start the same command again"
            ) from exc


def read_state(path: Path, training: Training, what: Mapping[str, Any]) -> None:
    """Load the state of a run into ``training``.

    Raises
    ------
    CheckpointError
        If the file is damaged, or belongs to a run that differs in ``what``; the differences are
        listed.
    """
    with _opened(path) as (file, record):
        _check_same(path, record["what"], what)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    _load(training, tensors)
    training.step, training.seconds = int(record["step"]), float(record["seconds"])


def check_state(path: Path, what: Mapping[str, Any]) -> None:
    """Raise as `read_state` does, from the header of the file alone."""
    with _opened(path) as (_, record):
        _check_same(path, record["what"], what)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the open file and its record."""
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {}).get("training", "null"))
            if not isinstance(record, dict) or not {"what", "step", "seconds"} <= record.keys():
                raise CheckpointError(
                    f"{path} is not the state of a training run; choose another run.folder"
                )
            yield file, record
    except (SafetensorError, OSError, ValueError) as exc:
        raise CheckpointError(
            f"{path} is not a complete state of a training run ({exc}); choose another run.folder, "
            "or remove the file to start again"
        ) from exc


def _check_same(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    # A state of another version may state more of the run, or less: options that it did not have
    # are at their defaults.
    old = {**old, **{name: {**table, **old.get(name, {})} for name, table in defaults().items()}}
    both = old.keys() & new.keys()
    differing = list(_differences({k: old[k] for k in both}, {k: new[k] for k in both}))
    if differing:
        raise CheckpointError(
            f"{path} belongs to another run: {'; '.join(differing[:_LISTED])}. Undo the change, or "
            "choose another run.folder; only optimiser.steps, initial, image_size, map_tile_size "
            "and, except for its seed, [run] may differ"
        )


def _modules(training: Training) -> Iterator[tuple[str, nn.Module]]:
    yield _OBJECTIVE, training.objective
    if training.average is not training.objective.encoder:
        yield _AVERAGE, training.average


def _tensors(training: Training) -> Iterator[tuple[str, Tensor]]:
    for prefix, module in _modules(training):
        for name, value in module.state_dict().items():
            yield prefix + name, value
    for number, moments in training.optimiser.state_dict()["state"].items():
        for name, value in moments.items():
            yield f"{_OPTIMISER}{number}.{name}", value


def _load(training: Training, tensors: Mapping[str, Tensor]) -> None:
    def below(prefix: str) -> dict[str, Tensor]:
        named = tensors.items()
        return {name.removeprefix(prefix): t for name, t in named if name.startswith(prefix)}

    for prefix, module in _modules(training):
        module.load_state_dict(below(prefix))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in below(_OPTIMISER).items():
        number, _, moment = name.partition(".")
        # The optimiser keeps what it is given: a view of the file would hold the file open.
        moments.setdefault(int(number), {})[moment] = value.clone()
    training.optimiser.load_state_dict(training.optimiser.state_dict() | {"state": moments})


def _differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
    elif old != new:
        yield f"{where} was {old!r} and is now {new!r}"
