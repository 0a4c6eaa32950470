"""Embeds with weights of the hub in a process that has not loaded its client; `tests.test_hub`."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stderr
from typing import Any

import numpy as np

from rs_embed import FetchSpec, RsEmbedError, get_embedding


def embedded(weights: str, pixel: float, scale_m: float) -> dict[str, Any]:
    """Return the meta and the first value of an embedding, or the error.

    With an error comes what was written to standard error.
    """
    warnings.simplefilter("ignore")
    try:
        with redirect_stderr(io.StringIO()) as said:
            made = get_embedding(
                "scalemae", input_chw=np.full((3, 40, 40), pixel), fetch=FetchSpec(scale_m=scale_m),
                weights=weights or None,
            )  # fmt: skip
    except RsEmbedError as exc:
        return {"error": type(exc).__name__, "message": str(exc), "said": said.getvalue()}
    return {"first": float(made.data[0]), "meta": made.meta}
