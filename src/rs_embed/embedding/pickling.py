"""Requests as bytes, for other processes."""

from __future__ import annotations

import pickle
from dataclasses import fields, is_dataclass
from typing import Any

from rs_embed.errors import SpecError

# What pickle raises for locks, open files, and classes or functions that are not in a module.
_UNPICKLABLE = (pickle.PicklingError, TypeError, AttributeError, RuntimeError)
# A class of the user's script, as protocol 4 and later write the name of its module.
_OF_THE_SCRIPT = b"\x8c\x08__main__"


def pickled(request: Any) -> bytes:
    """Return a request as bytes, for `pickle.loads` in a process that does not run the script.

    Raises
    ------
    SpecError
        If a part of it does not pickle; the message names it.
    """
    try:
        found = pickle.dumps(request)
        reason = "a class in it is defined in the script"
    except _UNPICKLABLE as exc:
        found, reason = _OF_THE_SCRIPT, str(exc)
    if _OF_THE_SCRIPT not in found:
        return found
    for name, part in _parts("request", request):
        try:
            if _OF_THE_SCRIPT not in pickle.dumps(part):
                continue
        except _UNPICKLABLE as exc:
            reason = str(exc)
        raise SpecError(
            f"got {name}={part!r:.120}, which cannot be sent to another process ({reason}); pass "
            "imagery as a path or in memory (.load()), and providers and models of classes that "
            "a module defines"
        )
    raise SpecError(f"the request cannot be sent to another process: {reason}")


def _parts(name: str, value: Any) -> list[tuple[str, Any]]:
    """Return the fields of a request, of those that are requests themselves the innermost."""
    if isinstance(value, tuple):
        return [part for each in value for part in _parts(name, each)]
    if not is_dataclass(value) or isinstance(value, type):
        return [(name, value)]
    return [
        part for field in fields(value) for part in _parts(field.name, getattr(value, field.name))
    ]
