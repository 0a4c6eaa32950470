"""A model that states of itself what its option says; other processes register it, too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rs_embed.models.base import Option, Tokens
from rs_embed.settings import Settings
from tests.coordinate_model import CoordinateEncoder, CoordinateModel, CoordinatePlan


@dataclass
class StatingEncoder(CoordinateEncoder):
    """Gives the same tokens whatever it states of itself."""

    tokens_kind: str = "colours"

    def encode(self, pixels: NDArray[np.float32], input_res_m: Sequence[float]) -> Tokens:
        made = super().encode(pixels, input_res_m)
        return Tokens(made.cls, made.patches, None, self.tokens_kind)


@dataclass(frozen=True)
class StatingPlan(CoordinatePlan):
    stated: str = "{}"

    def load(self) -> StatingEncoder:
        stated = json.loads(self.stated)
        kind = stated.pop("tokens_kind", "colours")
        return StatingEncoder(self.image_size, [], provenance=stated, tokens_kind=kind)


class StatingModel(CoordinateModel):
    """States what the option ``stated`` holds, as JSON."""

    def __init__(self, name: str) -> None:
        option = Option("stated", "its provenance and tokens_kind", "{}", type="string")
        self.description = replace(CoordinateModel.description, id=name, options=(option,))

    def plan(self, options: Mapping[str, Any], *, device: str, settings: Settings) -> StatingPlan:
        plan = super().plan({}, device=device, settings=settings)
        return StatingPlan(**vars(plan), stated=options.get("stated", "{}"))


MODEL, TWIN = StatingModel("stating"), StatingModel("twin")
STATING = """
[rs_embed.models]
stating = tests.stating_model:MODEL
twin = tests.stating_model:TWIN
"""
