"""The lines of ``metrics.jsonl``, and the guard that a loss which is not finite ends the run."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from rs_embed.errors import ExportError, TrainingError
from rs_embed.files.writing import written
from rs_embed.training.config import PretrainConfig, learning_rate
from rs_embed.training.state import Training


class Metrics:
    """The lines of ``metrics.jsonl``: means since the line before.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    training : Training
        Where the run goes on; lines of later steps are dropped, since they are made again, and so
        is what a full disk left of a line.
    """

    def __init__(self, path: Path, training: Training) -> None:
        self._path = path
        self._since: list[Tensor] = []
        self._seconds = training.seconds
        lines = []
        if training.step and path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                step = _step_of(line)
                if step is not None and step <= training.step:
                    lines.append(line + "\n")
        with written(path) as partial:
            partial.write_text("".join(lines))

    def add(self, losses: Tensor, norm: Tensor) -> None:
        """Add the ``(4,)`` losses and the gradient's norm of a step, without waiting for them."""
        self._since.append(torch.cat([losses, norm.detach().reshape(1)]))

    def write(self, training: Training, config: PretrainConfig, *, kept: bool) -> None:
        """Append a line, if there was a step since the last.

        Parameters
        ----------
        training : Training
            After those steps.
        config : PretrainConfig
            The run.
        kept : bool
            Whether there is a checkpoint, for messages.

        Raises
        ------
        TrainingError
            If a loss of these steps is not finite.
        ExportError
            If the file cannot be written.
        """
        if not self._since:
            return
        values = torch.stack(self._since).cpu()  # steps 5
        count = len(values)
        finite = torch.isfinite(values).all(dim=1)
        if not finite.all():
            first = int((~finite).nonzero()[0])
            names = ("loss", "low", "high", "contrast", "gradient norm")
            shown = ", ".join(
                f"{name} {float(value):.4g}"
                for name, value in zip(names, values[first], strict=True)
            )
            fix = (
                "the last checkpoint is kept. Lower optimiser.learning_rate or raise warmup_steps, "
                "choose another run.folder, and begin from that checkpoint with initial="
                if kept
                else "there is no checkpoint yet. Lower optimiser.learning_rate or raise "
                "warmup_steps, and start again"
            )
            raise TrainingError(
                f"step {training.step - count + first + 1} is not finite ({shown}); {fix}"
            )
        total, low, high, contrast, norm = (float(value) for value in values.mean(dim=0))
        took = training.seconds - self._seconds
        line = {
            "step": training.step,
            "seconds": round(training.seconds, 3),
            "tiles_per_s": round(count * config.optimiser.batch_size / max(took, 1e-9), 1),
            "learning_rate": learning_rate(config, training.step - 1),
            "loss": total,
            "low": low,
            "high": high,
            "contrast": contrast,
            "gradient_norm": norm,
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


def _step_of(line: str) -> int | None:
    """Return the step of a line of the metrics; None if it is incomplete."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None
