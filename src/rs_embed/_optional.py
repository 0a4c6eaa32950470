"""Import optional packages, with an error that names the extra to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from rs_embed.errors import MissingDependencyError


def install(extra: str) -> str:
    """Return the command that installs an extra; ``rs-embed`` on PyPI is a different project."""
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
        The feature that needs it, a noun phrase for the message.

    Raises
    ------
    MissingDependencyError
        If it is not installed, or fails to import its dependencies.
    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise MissingDependencyError(
            f"{purpose} needs the package {module.partition('.')[0]!r} ({exc}); "
            f"install it with: {install(extra)}"
        ) from exc
