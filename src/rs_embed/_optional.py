"""Import a package that an extra brings, or say which extra that is."""

from __future__ import annotations

import importlib
from types import ModuleType

from rs_embed.errors import MissingDependencyError


def install(extra: str) -> str:
    """Return the command that installs an extra; the name on PyPI is another project's."""
    return f"pip install '.[{extra}]' in a clone of rs-embed"


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Return the imported ``module``.

    Parameters
    ----------
    module : str
        Dotted name, e.g. ``"h5netcdf"``.
    extra : str
        Extra of the ``rs-embed`` distribution that installs it.
    purpose : str
        What needs it, as a noun phrase for the message.

    Raises
    ------
    MissingDependencyError
        If it is not installed, or its own imports fail.
    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise MissingDependencyError(
            f"{purpose} needs the package {module.partition('.')[0]!r} ({exc}); "
            f"install it with: {install(extra)}"
        ) from exc
