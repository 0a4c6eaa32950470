"""The exceptions and warnings of rs_embed, all of them, and how a warning is given.

::

    RsEmbedError
    ├── SpecError (ValueError)              what was asked cannot be meant
    │   └── UnknownNameError (LookupError)  no model, backend or option of that name
    ├── SettingsError (ValueError)          an environment variable holds nonsense
    ├── GridError (ValueError)              a grid without usable metres or north
    ├── ImageryError (ValueError)           pixels that must not reach the model
    ├── DatasetError (ValueError)           a set of images that cannot be read or scored
    ├── ProviderError (RuntimeError)        a source gave no imagery (``.transient``)
    │   └── NoImageryError (LookupError)    it has none for the place and period
    ├── ModelError (RuntimeError)           the model cannot do what was asked
    │   └── CheckpointError                 weights missing, foreign or broken
    ├── TrainingError (RuntimeError)        a pretraining run that cannot go on
    ├── ExportError (OSError)               a result could not be written or read
    └── MissingDependencyError (ImportError)

    RsEmbedWarning (UserWarning)
    ├── GsdWarning         the GSD was assumed, or lies far from what was trained on
    ├── CoverageWarning    part of the input is not seen by the model
    ├── TemporalWarning    the period was assumed, or could not be applied
    └── ImageryWarning     pixels were repaired or left out
"""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = [
    "CheckpointError",
    "CoverageWarning",
    "DatasetError",
    "ExportError",
    "GridError",
    "GsdWarning",
    "ImageryError",
    "ImageryWarning",
    "MissingDependencyError",
    "ModelError",
    "NoImageryError",
    "ProviderError",
    "RsEmbedError",
    "RsEmbedWarning",
    "SettingsError",
    "SpecError",
    "TemporalWarning",
    "TrainingError",
    "UnknownNameError",
]


class RsEmbedError(Exception):
    """Root of every error that rs_embed raises on purpose.

    Attributes
    ----------
    index : int or None
        Number of the place in a batch, from 0; None outside batches.
    """

    index: int | None = None

    def restated(self, message: str) -> Self:
        """Return a new error of the same class and attributes; raise it ``from`` this one."""
        error = type(self)(message)
        vars(error).update({k: v for k, v in vars(self).items() if k != "__notes__"})
        return error


class SpecError(RsEmbedError, ValueError):
    """A place, period, sensor, output or option that cannot be meant."""


class UnknownNameError(SpecError, LookupError):
    """No model, backend, option or choice of that name; the near matches are named."""

    @classmethod
    def among(
        cls, kind: str, got: object, known: Iterable[str], *, of: str = ""
    ) -> UnknownNameError:
        """Return the error for ``got`` where one of ``known`` was expected.

        Parameters
        ----------
        kind : str
            What the name stands for, e.g. ``"model"``.
        got : object
            What was passed.
        known : iterable of str
            The valid names.
        of : str
            What has these names, e.g. ``"model 'scalemae'"``; may be empty.
        """
        names = sorted(known)
        near = difflib.get_close_matches(str(got), names, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        what = f"{kind} {got!r} of {of}" if of else f"{kind} {got!r}"
        return cls(f"unknown {what}, expected one of {', '.join(names) or '(none)'}{hint}")


class SettingsError(RsEmbedError, ValueError):
    """An ``RS_EMBED_*`` environment variable holds a value that cannot be used."""


class GridError(RsEmbedError, ValueError):
    """A grid whose metres or orientation are unusable, or a window outside it."""


class ImageryError(RsEmbedError, ValueError):
    """Pixels that must not reach the model: wrong bands, units, validity or place."""


class DatasetError(RsEmbedError, ValueError):
    """A set of images that cannot be read, or whose labels and splits do not serve."""


class ProviderError(RsEmbedError, RuntimeError):
    """A source could not give the imagery.

    Attributes
    ----------
    transient : bool
        True where the same request may succeed later, so that retrying is sensible.
    retry_after_s : float or None
        Seconds after which the service asks to be tried again; None where it does not say.
    """

    def __init__(
        self, message: str, *, transient: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after_s = retry_after_s


class NoImageryError(ProviderError, LookupError):
    """A source has no imagery for the place and period, or none that passes the filters."""


class ModelError(RsEmbedError, RuntimeError):
    """The model, its device or its output does not allow what was asked."""


class CheckpointError(ModelError):
    """Weights that are missing, foreign, truncated, or unsafe to open."""


class TrainingError(RsEmbedError, RuntimeError):
    """A pretraining run cannot go on: its loss is not finite, or another run uses its folder."""


class ExportError(RsEmbedError, OSError):
    """A result could not be written to, or read from, a file."""


class MissingDependencyError(RsEmbedError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class RsEmbedWarning(UserWarning):
    """Root of every warning of rs_embed; what it says is in ``Embedding.meta`` too."""


class GsdWarning(RsEmbedWarning):
    """The ground sample distance was assumed, or is far from what the weights were trained on."""


class CoverageWarning(RsEmbedWarning):
    """Part of the requested area is not seen by the model."""


class TemporalWarning(RsEmbedWarning):
    """The period was assumed, or could not be applied to undated imagery."""


class ImageryWarning(RsEmbedWarning):
    """Pixels were left out, or their meaning was assumed."""


@dataclass(frozen=True)
class Note:
    """A warning still to be given: noted where it arises, given in the caller's thread."""

    message: str
    category: type[RsEmbedWarning]


def some(names: Sequence[str], most: int = 3, between: str = ", ") -> str:
    """Return up to ``most`` of the names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more


def give_warnings(notes: Iterable[Note]) -> None:
    """Warn at the line of the caller's code that entered rs_embed, wherever we are inside it."""
    here = str(Path(__file__).parent) + os.sep
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        frame = frame.f_back
        level += 1
    for note in notes:
        warnings.warn(note.message, note.category, stacklevel=level)
