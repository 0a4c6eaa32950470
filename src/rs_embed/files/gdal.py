"""Open raster files with GDAL, keep them open, and report failures without credentials."""

from __future__ import annotations

import os
import re
import shlex
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from rs_embed.addresses import check_beside, local_path
from rs_embed.errors import ImageryError
from rs_embed.files.vrt import PLAIN, check_vrt

# GDAL remembers for the life of the process that a URL failed. These are opened with the option
# that makes it request them again.
_FAILED: set[str] = set()
_MOST_FAILED = 4096
# Beside an image: statistics, written by software that shows it, and overviews.
_DERIVED = (".aux.xml", ".ovr")
# What the network needs, for every read: without time-outs it could hang for ever, and without
# the first, rasterio lists the folder of a URL and stops all of Python until that is answered.
_NETWORK = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # Waits double: an error of less than a second does not repeat the whole place.
    "GDAL_HTTP_MAX_RETRY": "2",
    "GDAL_HTTP_RETRY_DELAY": "0.25",
    # Seconds.
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
}
# Python in a VRT does not run.
_ON_THIS_DISK = {"GDAL_VRT_ENABLE_PYTHON": "NO"}
_OF_SERVERS = re.compile(r"://|/vsi(?:curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)")
_JP2 = ("JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID")
_ON_THE_WEB = ("GTiff", "JP2OpenJPEG")
_BY_SUFFIX = {".tif": ("GTiff",), ".tiff": ("GTiff",), ".jp2": _JP2, ".img": ("HFA", "ENVI")}
_AFRESH = {"CPL_VSIL_CURL_NON_CACHED": "/vsicurl/http:/vsis3/"}
# How GDAL words transient failures of a server: HTTP status codes, and messages of curl.
_PASSING = re.compile(
    r"HTTP (?:response|error) code(?: on \S+)?\s*:?\s*(?:408|429|5\d\d)|timed out|timeout|"
    r"connection (?:was )?re(?:set|fused)|empty reply|resolve host|recv failure|"
    r"transfer closed|could not connect|failed to connect",
    re.IGNORECASE,
)
_DENIED = re.compile(r"HTTP (?:response|error) code(?: on \S+)?\s*:?\s*(?:401|403)", re.I)


class OpenFiles:
    """Files that stay open while several parts of them are read, closed at the end.

    Any thread may read; each file is read by one at a time. After the end nothing is opened any
    more, and a file that is still read then stays open until its reader lets go of it.

    Parameters
    ----------
    most : int
        How many; further ones are opened anew for each read.
    """

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ended = True
            ended = list(self._kept.values())
            self._kept.clear()
        for kept in ended:
            # After an error or Ctrl-C readers may still run, and closing a file under one would
            # crash the process: the reader has the last reference, and so closes it.
            if kept.lock.acquire(blocking=False):
                try:
                    if kept.dataset is not None:
                        kept.dataset.close()
                finally:
                    kept.lock.release()

    @contextmanager
    def dataset(self, path: str) -> Iterator[Any]:
        """Yield the open file; failures of GDAL become `ImageryError`."""
        with self._lock:
            self._refuse_if_ended(path)
            if path not in self._kept and len(self._kept) < self._most:
                self._kept[path] = _Kept()
            kept = self._kept.get(path)
        if kept is None:
            with open_file(path) as dataset:
                yield dataset
            return
        with kept.lock, _ours(path), _environment(path):
            self._refuse_if_ended(path)
            if kept.dataset is None:
                kept.dataset = _open(path)
            yield kept.dataset

    def _refuse_if_ended(self, path: str) -> None:
        if self._ended:
            raise ImageryError(f"{shown_path(path)!r} was read after its files were closed")


class _Kept:
    """A file that is or will be open, and who reads it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.dataset: Any = None


def may_pass(failure: BaseException) -> bool:
    """Return whether reading failed for a transient reason on a server."""
    return any(_PASSING.search(str(exc)) for exc in _chain(failure))


def is_unread(failure: BaseException) -> bool:
    """Return whether GDAL failed to read, for any reason."""
    from rasterio.errors import RasterioError

    return any(isinstance(exc, RasterioError) for exc in _chain(failure))


def is_denied(failure: BaseException) -> bool:
    """Return whether a server refused access to a file, e.g. because a token expired."""
    return any(_DENIED.search(str(exc)) for exc in _chain(failure))


def _chain(failure: BaseException | None) -> Iterator[BaseException]:
    while failure is not None:
        yield failure
        failure = failure.__cause__ or failure.__context__


@contextmanager
def open_file(path: str, kept: OpenFiles | None = None) -> Iterator[Any]:
    """Open a raster file; failures of GDAL until it is closed become `ImageryError`."""
    if kept is not None:
        with kept.dataset(path) as dataset:
            yield dataset
        return
    with _ours(path), _environment(path), _open(path) as dataset:
        yield dataset


def read_with(path: str) -> tuple[str, list[str]]:
    """Return a text of the metadata of a raster file, and all files that it is read from.

    The files are masks and sources of a VRT, and in turn the sources of VRTs among these.
    Statistics and overviews are left out, since other software writes them when it shows an image.
    Files that cannot be opened have none.
    """
    found: list[str] = []
    left, metadata = [path], ""
    while left:
        try:
            with quietly(), open_file(left.pop()) as file:
                new = [n for n in file.files if n not in found and not n.lower().endswith(_DERIVED)]
                metadata = metadata or repr(
                    (
                        file.crs and file.crs.to_wkt(), tuple(file.transform), file.nodatavals,
                        file.scales, file.offsets, file.mask_flag_enums, file.dtypes,
                        file.descriptions,
                    )
                )  # fmt: skip
        except ImageryError:  # reading it raises the error
            continue
        found += new
        left += [name for name in new if name.lower().endswith(".vrt") and name != path]
    return metadata, found


@contextmanager
def quietly() -> Iterator[None]:
    """Open images without georeference and without a warning; callers check it if needed."""
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def is_on_the_web(path: str) -> bool:
    """Return whether a path leads to a server."""
    return _OF_SERVERS.search(path) is not None


@contextmanager
def _environment(path: str) -> Iterator[None]:
    """Read with GDAL's options for the network, or for this disk."""
    import rasterio

    with rasterio.Env(**(_NETWORK if is_on_the_web(local_path(path)) else _ON_THIS_DISK)):
        yield


def _open(path: str) -> Any:
    """Return the opened file; one that failed before is requested again."""
    import rasterio
    from rasterio.io import DatasetReader

    address = local_path(path)
    if address.lstrip().startswith("<"):
        raise ImageryError(f"got the text {address.strip()[:40]!r} as imagery, expected a path")
    try:
        check_beside(address)
    except OSError as exc:
        raise ImageryError(f"cannot read {shown_path(path)!r} as an image: {exc}") from exc
    drivers = _drivers(address)
    # rasterio.open takes one driver only before version 1.5.
    opened = partial(DatasetReader, address, driver=drivers, sharing=False)
    if path not in _FAILED:
        return opened()
    with rasterio.Env(**_AFRESH):
        dataset = opened()
    _FAILED.discard(path)
    return dataset


def _drivers(address: str) -> list[str]:
    """Return the drivers of GDAL that may open a file: its content does not choose among others."""
    if is_on_the_web(address):
        return list(_ON_THE_WEB)
    suffix = os.path.splitext(address)[1].lower()
    if suffix == ".vrt" and not address.startswith("/vsi"):
        check_vrt(address)
        return ["VRT"]
    return list(_BY_SUFFIX.get(suffix, ())) or list(PLAIN)


@contextmanager
def _ours(path: str) -> Iterator[None]:
    """Turn failures of GDAL into `ImageryError`."""
    from rasterio.errors import RasterioError

    shown = shown_path(path)
    try:
        yield
    except RasterioError as exc:
        if "://" in path:
            if len(_FAILED) >= _MOST_FAILED:
                _FAILED.clear()
            _FAILED.add(path)
        if os.path.isdir(path):
            reason = "it is a folder"
        else:
            # GDAL may name a file by the end of its URL only.
            query = "".join(path.partition("?")[1:])
            reason = str(exc.__cause__ or exc).replace(path, shown).replace(query, "")
        missing = "No such file" in reason
        fix = "check the path" if missing else f"check it with: rio info {shlex.quote(shown)}"
        error = ImageryError(f"cannot read {shown!r} as an image ({reason}); {fix}")
        if shown != path:
            raise error from None  # a traceback would show the credentials in it
        raise error from exc


def shown_path(path: str) -> str:
    """Return a path or URL without the credentials that a URL may carry."""
    if "://" not in path:
        return path
    start = path[: path.index("://")].rfind("/") + 1  # behind /vsicurl/ and the like
    prefix = path[:start]
    try:
        parts = urlsplit(path[start:])
    except ValueError:
        return "(a malformed URL)"
    return prefix + urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
