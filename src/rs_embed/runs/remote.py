"""Where outputs are made: on object stores, by way of a temporary folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rs_embed.addresses import path_of
from rs_embed.errors import ExportError, RsEmbedError
from rs_embed.files.formats import Formats
from rs_embed.network.stores import Store, is_store
from rs_embed.runs.mirror import Mirror
from rs_embed.runs.run import partial_path


@dataclass(frozen=True)
class Destination:
    """Where an output is made.

    Attributes
    ----------
    path : pathlib.Path
        Where a run writes it.
    shown : pathlib.Path or str
        Where it is in the end: the path or the URL.
    mirror : Mirror or None
        What the run leaves on the store of the URL.
    """

    path: Path
    shown: Path | str
    mirror: Mirror | None = None


@contextmanager
def destination(
    output: str | os.PathLike[str], formats: Formats[Any], *, overwrite: bool = False
) -> Iterator[Destination]:
    """Yield where an output is made: at its path, or in a temporary folder if it is on a store.

    What is on the store of it, finished or not, is in that folder; errors name its URL.

    Raises
    ------
    UnknownNameError
        If ``formats`` have no such suffix.
    ExportError
        If the store cannot be read, or what is kept there is damaged.
    MissingDependencyError
        If the package of its protocol is not installed.
    """
    if not is_store(output):
        yield Destination(path_of(output), path_of(output))
        return
    store = Store.of(os.fspath(output))
    name = store.root.rpartition("/")[2]
    formats.of(Path(name))
    mirror = Mirror(store)
    try:
        scratch = tempfile.TemporaryDirectory(prefix="rs_embed-", ignore_cleanup_errors=True)
    except OSError as exc:
        raise ExportError(f"cannot make a temporary folder ({exc}); set TMPDIR to one") from exc
    with scratch as folder:
        path = Path(folder) / name
        try:
            mirror.fetch(path, partial_path(path), overwrite=overwrite)
            yield Destination(path, store.url, mirror)
        except RsEmbedError as exc:
            if str(path) not in str(exc):
                raise
            raise exc.restated(str(exc).replace(str(path), store.url)) from exc
