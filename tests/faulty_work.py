"""A model and a provider that end their process, or raise, where a file says so.

Other processes read the file, too: it is beside the module ``faulty_home`` on their path.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rs_embed import LocalProvider, Raster
from rs_embed.errors import CheckpointError
from rs_embed.models.base import Tokens
from rs_embed.settings import Settings
from tests.coordinate_model import CoordinateEncoder, CoordinateModel, CoordinatePlan

ENTRY = "[rs_embed.models]\nfaulty = tests.faulty_work:MODEL\n"
# Pixels of the scene from this column on are blue, and only the last place has some of them.
BLUE_FROM = 392


class OddError(Exception):
    """Does not pickle."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


def home() -> Path:
    """Return the folder of the file."""
    return Path(str(importlib.import_module("faulty_home").__file__)).parent


def strike(where: str, *, marked: bool) -> None:
    """Do what the file says of this place in the code."""
    file = home() / "fault.json"
    fault = json.loads(file.read_text()) if file.exists() else {}
    if fault.get("where") != where or (fault.get("marked") and not marked):
        return
    if fault.get("once"):
        try:
            (home() / "struck").touch(exist_ok=False)
        except FileExistsError:
            return
    how = fault["how"]
    if how == "exit":
        os._exit(3)
    if how == "sleep":
        (home() / "asleep").touch()
        time.sleep(600)
    if how == "CheckpointError":
        raise CheckpointError("damaged weights")
    if how == "OddError":
        raise OddError(1, 2)
    os.kill(os.getpid(), getattr(signal, how))


class FaultyEncoder(CoordinateEncoder):
    def encode(self, pixels: NDArray[np.float32], input_res_m: Sequence[float]) -> Tokens:
        made = super().encode(pixels, input_res_m)
        assert made.patches is not None
        strike("encode", marked=bool(made.patches[..., 2].max() > 100))
        return made


class FaultyPlan(CoordinatePlan):
    def load(self) -> FaultyEncoder:
        strike("load", marked=False)
        return FaultyEncoder(self.loaded_size, [], self.refuse)


class FaultyModel(CoordinateModel):
    description = replace(CoordinateModel.description, id="faulty")

    def plan(self, options: Mapping[str, Any], *, device: str, settings: Settings) -> FaultyPlan:
        return FaultyPlan(**vars(super().plan(options, device=device, settings=settings)))


class FaultyProvider(LocalProvider):
    def fetch(self, grid: Any, **asked: Any) -> Raster:
        strike("fetch", marked=grid.bounds[2] > 400000 + 10 * BLUE_FROM)
        return super().fetch(grid, **asked)


MODEL = FaultyModel()
