"""The folder of a page: written as a whole or not at all, and replaced only if it is ours."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from rs_embed.errors import ExportError, some
from rs_embed.files.writing import check_place, files_of, sync

ABOUT = "explore.json"


def check_site(target: Path, *, overwrite: bool) -> None:
    """Raise `ExportError` unless a page may be written to ``target``: nothing else is lost."""
    if not target.is_dir():
        check_place(target)
        if target.exists():
            raise ExportError(f"cannot write {target}: it is a file; choose another name")
        return
    check_place(target / ABOUT)
    names = {file.relative_to(target).as_posix() for file in files_of(target)}
    if not names:
        return
    ours = _listed(target)
    others = sorted(names - ours)
    if others:
        raise ExportError(
            f"cannot write {target}: it holds other files ({some(others)}); choose another folder, "
            "or move them out of it"
        )
    if not overwrite:
        raise ExportError(
            f"{target} is a finished page already; look at it with: python -m http.server "
            f"--bind 127.0.0.1 -d {shlex.quote(str(target))}; or choose another name, or replace "
            "it with overwrite=True (--overwrite)"
        )


def _listed(target: Path) -> set[str]:
    """Return the files of the page at ``target``, as it lists them; none if it is not ours."""
    try:
        about = json.loads((target / ABOUT).read_text(encoding="utf-8"))
        return {ABOUT, *map(str, about["files"])} if "rs-embed" in about["made_with"] else set()
    except (OSError, ValueError, LookupError, TypeError):
        return set()


@contextmanager
def written_site(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a folder beside ``target`` with the files of the page; move it into place at the end.

    Raises
    ------
    ExportError
        See `check_site`; also if the disk is full.
    """
    check_site(target, overwrite=overwrite)
    partial, old = (target.with_name(f".{target.name}.{uuid.uuid4().hex}") for _ in range(2))
    try:
        with as_file(files("rs_embed.explorer") / "page") as page:
            shutil.copytree(page, partial)
        (partial / "data").mkdir(exist_ok=True)
        yield partial
        sync(partial)
        check_site(target, overwrite=overwrite)  # what has happened meanwhile
        if target.exists():
            target.rename(old)
        partial.rename(target)
    except ExportError:
        raise
    except OSError as exc:
        raise ExportError(f"cannot write {target}: {exc}; choose another place") from exc
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for folder in (partial, old):
            shutil.rmtree(folder, ignore_errors=True)


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write what the page reads first, and the names of all files of the page."""
    names = sorted(file.relative_to(folder).as_posix() for file in files_of(folder))
    write_json(folder / ABOUT, {**about, "files": names})


def write_json(path: Path, values: Any) -> None:
    """Write strict JSON: NaN is null, dates are ISO 8601, what is unknown is text."""
    text = json.dumps(plain(values), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, date) else str(value)
