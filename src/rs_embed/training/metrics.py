"""The lines of ``metrics.jsonl``, and the guard that a loss which is not finite ends the run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from rs_embed.errors import ExportError, TrainingError
from rs_embed.files.writing import written
from rs_embed.training.config import PretrainConfig, learning_rate
from rs_embed.training.state import Training

_NAMES = ("loss", "low", "high", "contrast", "dense", "gradient_norm")


class Metrics:
    """The lines of ``metrics.jsonl``: means since the line before.

    Lines after the step at which ``training`` goes on are dropped, since they are made again, and
    so is what a full disk left of a line.
    """

    def __init__(self, path: Path, training: Training) -> None:
        self._path = path
        self._since: list[Tensor] = []
        self._seconds = training.seconds
        old = training.step and path.exists()
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if old else ()
        with written(path, alone=True) as partial:
            partial.write_text(
                "".join(f"{line}\n" for line in lines if _step_of(line) <= training.step)
            )

    def add(self, losses: Tensor, norm: Tensor) -> None:
        """Add the ``(5,)`` losses and the gradient's norm of a step, without waiting for them."""
        self._since.append(torch.cat([losses, norm.detach().reshape(1)]))

    def write(self, training: Training, config: PretrainConfig, *, kept: bool) -> None:
        """Append a line, if there was a step since the last; ``kept`` is if there is a checkpoint.

        Raises
        ------
        TrainingError
            If a loss of these steps is not finite.
        ExportError
            If the file cannot be written.
        """
        if not self._since:
            return
        values = torch.stack(self._since).cpu()  # steps 6
        count = len(values)
        finite = torch.isfinite(values).all(dim=1)
        if not finite.all():
            first = int((~finite).nonzero()[0])
            pairs = zip(_NAMES, values[first].tolist(), strict=True)
            shown = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in pairs)
            state, fix = (
                (
                    "the last checkpoint is kept",
                    "choose another run.folder, and begin from that checkpoint with initial=",
                )
                if kept
                else ("there is no checkpoint yet", "and start again")
            )
            raise TrainingError(
                f"step {training.step - count + first + 1} is not finite ({shown}); {state}. Lower "
                f"optimiser.learning_rate or raise warmup_steps, {fix}"
            )
        took = training.seconds - self._seconds
        line = {
            "step": training.step,
            "seconds": round(training.seconds, 3),
            "tiles_per_s": round(count * config.optimiser.batch_size / max(took, 1e-9), 1),
            "learning_rate": learning_rate(config, training.step - 1),
            **dict(zip(_NAMES, values.mean(dim=0).tolist(), strict=True)),
        }
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as exc:
            raise ExportError(
                f"cannot write {self._path}: {exc}; the last checkpoint is kept. Free some space "
                "and start the same command again"
            ) from exc
        self._since, self._seconds = [], training.seconds


def _step_of(line: str) -> float:
    """Return the step of a line of the metrics; infinity if it is incomplete."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf
    return step if isinstance(step, int) else math.inf
