"""Task and source as bytes, for other processes."""

from __future__ import annotations

import pickle
from dataclasses import fields

from rs_embed.embedding.source import Source
from rs_embed.embedding.task import Task
from rs_embed.errors import SpecError

# What pickle raises for locks, open files, and classes or functions that are not in a module.
_UNPICKLABLE = (pickle.PicklingError, TypeError, AttributeError, RuntimeError)


def pickled(task: Task, source: Source) -> bytes:
    """Return a request as bytes; `pickle.loads` returns the task and the source.

    Raises
    ------
    SpecError
        If a part of it does not pickle; the message names it.
    """
    try:
        return pickle.dumps((task, source))
    except _UNPICKLABLE as exc:
        reason = exc
    for whole in (task, source):
        for field in fields(whole):
            try:
                pickle.dumps(getattr(whole, field.name))
            except _UNPICKLABLE as exc:
                raise SpecError(
                    f"got {field.name}={getattr(whole, field.name)!r:.120}, which cannot be sent "
                    f"to another process ({exc}); pass imagery as a path or in memory (.load()), "
                    "and providers and models of classes that a module defines"
                ) from exc
    raise SpecError(f"the request cannot be sent to another process: {reason}") from reason
