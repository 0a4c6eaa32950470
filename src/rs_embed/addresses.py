"""Where files are: the paths that ``file:`` and ``zip:`` URLs name, and what is at them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, unquote, urljoin

_FILE_URL = re.compile(r"file:(?://(?:localhost)?(?=/))?", re.IGNORECASE)
_ZIP_URL = re.compile(r"zip:(?://)?(?P<archive>[^!]+)!/?(?P<member>.+)", re.IGNORECASE)
_WEB = ("http://", "https://", "s3://", "gs://", "az://")
_BUCKET = re.compile(r"(s3|gs|az)(?=://)", re.IGNORECASE)
_WINDOWS_DRIVE = re.compile(r"/(?=[A-Za-z]:)")
# Prefixes of GDAL's file systems, and what parts the paths in names such as NETCDF:"a.nc":red.
_VIRTUAL = re.compile(r"^(?:/vsi[a-z0-9_]+/)+")
_WITH_OPTIONS = re.compile(r"/vsi[a-z0-9_]+\?")
# Of URLs, also within names of GDAL: user and password; query and fragment, up to a quote or a "!".
_USER = re.compile(r"(?<=://)[^/@?#\"'\s]*@")
_QUERY = re.compile(r"(?P<kept>://[^?#\"'!]*)[?#][^\"'!]*")
# File systems of GDAL that make files of parts of others, or are neither files nor archives.
ODD_SYSTEMS = re.compile(r"/vsi(?!zip|tar|gzip|7z|rar|curl|s3|gs|az|adls|oss|swift)[a-z0-9_]+/")
_BETWEEN_PATHS = re.compile(r'[:",{}]')
_KINDS = {
    stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip
# Configurations, credentials, metadata: documents that people or programs write by hand.
DOCUMENT_BYTES = 64 * 2**20
# An ItemCollection of a large search; places and polygons.
STAC_BYTES = PLACES_BYTES = 2**30


def local_path(address: str | os.PathLike[str]) -> str:
    """Return the path that a ``file:`` URL names, decoded; of a ``zip:`` URL that of GDAL.

    ``file:///a%20b.tif`` is ``/a b.tif``, and ``zip:///a.zip!b.tif`` is ``/vsizip//a.zip/b.tif``;
    other URLs and paths are returned as they are. ``#`` and ``?`` belong to the name of a file.
    """
    text = os.fspath(address)
    if start := _FILE_URL.match(text):
        return _WINDOWS_DRIVE.sub("", unquote(text[start.end() :]), count=1)
    if within := _ZIP_URL.fullmatch(text):
        return f"/vsizip/{within['archive']}/{within['member']}"
    return text


def linked_path(href: str, document: str | None) -> str:
    """Return the path or URL to which an href in a document leads, encoded or not.

    Of a path on disk that which exists, where ``#`` is a letter; URLs are encoded where they hold
    blanks or letters beyond ASCII. ``document`` is the path or URL of the document, if it has one;
    a document without is from the web.

    Raises
    ------
    ValueError
        If a document from the web leads elsewhere than to the web: what is on this disk, or inside
        its network by other means, is not for others to choose.
    """
    path, home = local_path(href), local_path(document or "")
    if "://" in path or "://" in home or document is None:
        bucket = _BUCKET.match(home)
        if bucket and "://" not in path:  # urljoin knows no buckets
            joined = bucket[1] + urljoin(f"http{home[bucket.end() :]}", path).removeprefix("http")
        else:
            joined = urljoin(home, path)
        url = quote(joined, safe="%/:?#[]@!$&'()*+,;=~")
        from_web = "://" in home or document is None
        if from_web and not url.lower().startswith(_WEB):
            raise ValueError(f"links to {shown_path(href)[:80]!r}, expected an address on the web")
        return url
    if ODD_SYSTEMS.search(path):
        raise ValueError(f"links to {href[:80]!r}, expected a file or an archive")
    folder = os.path.dirname(home)
    raw, decoded = (os.path.normpath(os.path.join(folder, p)) for p in (path, unquote(path)))
    return decoded if not os.path.exists(raw) and os.path.exists(decoded) else raw


def check_regular(address: str | os.PathLike[str]) -> None:
    """Raise `OSError` if a path leads to a FIFO, device or socket, also within names of GDAL.

    Opening one may block for ever, and reading one may never end. What does not exist is left to
    the code that opens it.
    """
    for path, mode in _on_disk(address):
        if kind := _KINDS.get(stat.S_IFMT(mode)):
            raise OSError(f"{path} is {kind}, not a file; write its content to a file first")


def local_files(address: str | os.PathLike[str]) -> list[Path]:
    """Return the files on this disk that a path or a name of GDAL contains, archives included."""
    return [Path(path) for path, mode in _on_disk(address) if stat.S_ISREG(mode)]


def _on_disk(address: str | os.PathLike[str]) -> Iterator[tuple[str, int]]:
    """Yield each path in an address that exists, or what exists of it, and its mode."""
    text = os.fspath(address)
    for piece in {text, *_BETWEEN_PATHS.split(text)}:
        path, mode = _VIRTUAL.sub("", piece), None
        while mode is None:
            try:
                mode = os.stat(path).st_mode
            except (OSError, ValueError):  # perhaps a member of an archive
                if (above := os.path.dirname(path)) in (path, ""):
                    break
                path = above
        if mode is not None:
            yield path, mode


def check_beside(address: str | os.PathLike[str], *, image: bool = False) -> None:
    """Raise as `check_regular`, also for a FIFO that GDAL may open with a file.

    That is one whose name begins like the file's; beside an image it looks for metadata under many
    other names too (``METADATA.DIM``, ``..._MTL.txt``).
    """
    check_regular(address)
    folder, own = os.path.split(os.fspath(address))
    folder, stem = folder or ".", os.path.splitext(own)[0].casefold()
    try:
        changed = os.stat(folder).st_mtime_ns
    except (OSError, ValueError):
        return
    for name in _fifos(folder, changed):
        if not image and not name.casefold().startswith(stem):
            continue
        raise OSError(f"{name!r} beside it is a FIFO, not a file; GDAL may open it: move it away")


@lru_cache
def _fifos(folder: str, changed: int) -> tuple[str, ...]:  # noqa: ARG001  # listed anew
    """Return the names of the FIFOs in a folder."""
    try:
        with os.scandir(folder) as found:
            return tuple(
                one.name
                for one in found
                if not one.is_file() and not one.is_dir() and stat.S_ISFIFO(os.stat(one).st_mode)
            )
    except OSError:
        return ()


def check_all_regular(folder: str | os.PathLike[str]) -> None:
    """Raise as `check_regular` for a path, and for all files below it if it is a folder."""
    check_regular(folder)
    for below, _, names in os.walk(folder):
        for name in names:
            check_regular(os.path.join(below, name))


def read_document(path: str | os.PathLike[str], most_bytes: int = DOCUMENT_BYTES) -> bytes:
    """Return the content of a file that is not larger than ``most_bytes``.

    Raises
    ------
    OSError
        If it cannot be read, is not a regular file, or is larger.
    """
    check_regular(path)
    with open(path, "rb") as file:
        too_large = os.fstat(file.fileno()).st_size > most_bytes
        content = b"" if too_large else file.read(most_bytes + 1)
    if too_large or len(content) > most_bytes:
        raise OSError(f"it is larger than {most_bytes:,} bytes")
    return content


def path_of(address: str | os.PathLike[str]) -> Path:
    """Return what `local_path` returns, as a `pathlib.Path`."""
    return Path(local_path(address))


@lru_cache(maxsize=4096)  # a place names the files of its scenes some 20 times each
def shown_path(path: str) -> str:
    """Return a path or URL without the credentials that URLs in it may carry."""
    if _WITH_OPTIONS.search(path):
        return f"{path.partition('?')[0]}?..."
    return _QUERY.sub(r"\g<kept>", _USER.sub("", path))
