"""All exceptions and warnings of rs_embed, and how warnings are given.

::

    RsEmbedError
    ├── SpecError (ValueError)              invalid request
    │   └── UnknownNameError (LookupError)  unknown model, backend, option or choice
    ├── SettingsError (ValueError)          invalid environment variable
    ├── GridError (ValueError)              grid without usable metres or orientation
    ├── ImageryError (ValueError)           unreadable or invalid pixels
    ├── DatasetError (ValueError)           set of images that cannot be read or scored
    ├── ProviderError (RuntimeError)        source failed to provide imagery (``.transient``)
    │   └── NoImageryError (LookupError)    no imagery for the place and period
    ├── ModelError (RuntimeError)           model, device or output unsuited to the request
    │   └── CheckpointError                 missing, foreign or damaged weights
    ├── TrainingError (RuntimeError)        pretraining run that cannot continue
    ├── EngineError (RuntimeError)          workers that cannot be started, or keep ending
    ├── ExportError (OSError)               result that cannot be written or read
    └── MissingDependencyError (ImportError)  optional package not installed

    RsEmbedWarning (UserWarning)
    ├── GsdWarning         GSD assumed, or far from the GSDs of the training
    ├── CoverageWarning    part of the area not seen by the model
    ├── TemporalWarning    period assumed, or not applied
    └── ImageryWarning     pixels left out, or their meaning assumed
"""

from __future__ import annotations

import difflib
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rs_embed.printable import printable

__all__ = [
    "CheckpointError",
    "CoverageWarning",
    "DatasetError",
    "EngineError",
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
    """Base class of all errors of rs_embed.

    Attributes
    ----------
    index : int or None
        Number of the place in a batch, from 0; None outside batches.
    """

    index: int | None = None

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows: the frames of the caller, then the message and its notes.

        ``traceback.print_exception(sys.last_value)`` shows all frames and causes.
        """
        frames = []
        for frame, line in traceback.walk_tb(self.__traceback__):
            package = str(frame.f_globals.get("__name__")).partition(".")[0]
            if package == __name__.partition(".")[0]:
                break
            if package not in ("IPython", "ipykernel"):
                frames.append((frame, line))
        shown = traceback.StackSummary.extract(iter(frames)).format()
        text = "".join([*shown, *traceback.format_exception_only(self)])
        return ["Traceback (most recent call last):", *text.splitlines()]

    def __str__(self) -> str:
        return printable(super().__str__())

    def restated(self, message: str) -> Self:
        """Return a new error of the same class and attributes; raise it ``from`` this one."""
        error = type(self)(message)
        vars(error).update({k: v for k, v in vars(self).items() if k != "__notes__"})
        return error


class SpecError(RsEmbedError, ValueError):
    """Invalid place, period, sensor, output or option."""


class UnknownNameError(SpecError, LookupError):
    """Unknown model, backend, option or choice; the message suggests similar names."""

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
        what = f"{kind} {got!r} of {of}" if of else f"{kind} {got!r}"
        expected = ", ".join(names) or "(none)"
        return cls(f"unknown {what}, expected one of {expected}{did_you_mean(got, names)}")


# Our arguments by what other libraries call them; a plural of ours has the same names.
_OTHER_NAMES = {
    "spatial": "bbox bounds box aoi roi geometry geom point location polygon place region",
    "temporal": "date dates datetime time period year daterange",
    "scale_m": "gsd resolution res scale pixel_size",
    "buffer_m": "buffer radius size",
    "backend": "provider catalog catalogue stac",
    "imagery": "image raster file path tif geotiff",
    "input_chw": "array pixels data",
    "output": "pooling mode",
}


def names_meant(got: object, known: Iterable[str]) -> list[str]:
    """Return the known names that an unknown one may stand for, the likeliest first."""
    names, text = list(known), str(got).casefold()
    ours = (ours for ours, others in _OTHER_NAMES.items() if text in others.split())
    near = [name for one in ours for name in (one, f"{one}s") if name in names]
    # The point that file types share says nothing.
    bare = {name.lstrip("."): name for name in names}
    likely = difflib.get_close_matches(str(got).lstrip("."), bare, n=3, cutoff=0.5)
    return near or [bare[name] for name in likely]


def did_you_mean(got: object, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the known ones that may be meant."""
    near = names_meant(got, known)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


class SettingsError(RsEmbedError, ValueError):
    """Invalid value of an ``RS_EMBED_*`` environment variable."""


class GridError(RsEmbedError, ValueError):
    """Grid without usable metres or orientation, or a window outside it."""


class ImageryError(RsEmbedError, ValueError):
    """Pixels that cannot be read, or have invalid bands, units, validity or place.

    Attributes
    ----------
    transient : bool
        True if the pixels are on a server and reading them may succeed later.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class DatasetError(RsEmbedError, ValueError):
    """Set of images that cannot be read, or whose labels or splits are unusable."""


class ProviderError(RsEmbedError, RuntimeError):
    """A source failed to provide the imagery.

    Attributes
    ----------
    transient : bool
        True if the same request may succeed later, so that a retry is sensible.
    retry_after_s : float or None
        Seconds until the service wants the next try; None if it does not state them.
    """

    def __init__(
        self, message: str, *, transient: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after_s = retry_after_s


class NoImageryError(ProviderError, LookupError):
    """No imagery for the place and period, or none that passes the filters."""


class ModelError(RsEmbedError, RuntimeError):
    """The model, its device or its output does not suit the request."""


class CheckpointError(ModelError):
    """Weights that are missing, foreign, truncated or unsafe to open."""


class TrainingError(RsEmbedError, RuntimeError):
    """A pretraining run cannot continue: invalid loss, or a folder used by another run."""


class EngineError(RsEmbedError, RuntimeError):
    """Worker processes cannot be started or reached, keep ending, or ended at an item."""


class ExportError(RsEmbedError, OSError):
    """A result cannot be written to, or read from, a file."""


class MissingDependencyError(RsEmbedError, ImportError):
    """An optional package is not installed; the message names the extra to install."""


class RsEmbedWarning(UserWarning):
    """Base class of all warnings of rs_embed; also recorded in ``Embedding.meta``."""


class GsdWarning(RsEmbedWarning):
    """The GSD was assumed, or is far from the GSDs that the weights were trained on."""


class CoverageWarning(RsEmbedWarning):
    """Part of the requested area is not seen by the model."""


class TemporalWarning(RsEmbedWarning):
    """The period was assumed, or could not be applied to undated imagery."""


class ImageryWarning(RsEmbedWarning):
    """Pixels were left out, or their meaning was assumed."""


@dataclass(frozen=True)
class Note:
    """A warning that is collected where it arises and given in the caller's thread.

    Of those with the same ``once``, a process gives the first; ``meta`` records all.
    """

    message: str
    category: type[RsEmbedWarning]
    once: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", printable(self.message))


# What has been given once in this process.
given_once: set[str] = set()


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and what it was raised from or while handling."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def some(names: Sequence[str], most: int = 3, between: str = ", ") -> str:
    """Return up to ``most`` of the names, and the number of the rest."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more


def give_warnings(notes: Iterable[Note]) -> None:
    """Warn at the line of the caller's code that called rs_embed."""
    here = str(Path(__file__).parent) + os.sep
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        frame = frame.f_back
        level += 1
    for note in notes:
        if note.once in given_once:
            continue
        warnings.warn(note.message, note.category, stacklevel=level)
        given_once.update([note.once] if note.once else [])
