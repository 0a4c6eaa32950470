"""Open raster files with GDAL, keep them open, and report failures without credentials."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rs_embed.addresses import local_path, shown_path
from rs_embed.errors import ImageryError, causes
from rs_embed.files.foreign import check_content, check_opened
from rs_embed.files.vrt import PLAIN, check_vrt
from rs_embed.network.answers import first_bytes, is_page, is_passing
from rs_embed.settings import stated_gdal_http

Read = TypeVar("Read")

# GDAL remembers for the life of the process that a URL failed: how often, by URL.
_FAILED: Counter[str] = Counter()
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
    # Bytes. What was read of a file at its opening must still be there when rasterio asks for its
    # masks: it lets no other thread run meanwhile.
    "GDAL_INGESTED_BYTES_AT_OPEN": "65536",
    "CPL_VSIL_CURL_CACHE_SIZE": "67108864",
}
# A VRT may have sources on the web. Python in it does not run, and raw bands are not opened (by an
# option of GDAL 3.12; `check_vrt` sees to it before).
_ON_THIS_DISK = {
    # One look per possible sidecar file instead of a listing of the folder, which may be huge.
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_VRT_RAWRASTERBAND_ALLOWED_SOURCE": "ONLY_REMOTE",
    **{name: value for name, value in _NETWORK.items() if name.startswith("GDAL_HTTP_")},
}
_OF_SERVERS = re.compile(r"://|/vsi(?:curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)")
_JP2 = ("JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID")
_ON_THE_WEB = ("GTiff", "JP2OpenJPEG")
_BY_SUFFIX = {".tif": ("GTiff",), ".tiff": ("GTiff",), ".jp2": _JP2, ".img": ("HFA", "ENVI")}
_BESIDE = (".msk", ".aux.xml", ".ovr")
_FOREIGN, _MISSING = "not recognized as", "does not exist"
_VRT_REFUSED = "got a VRT on a server"
_UNDECODED_AGAIN = 4
_AT_ONCE_AGAIN = 2
_CONNECT_AGAIN = 3
# How TIFF, BigTIFF and JPEG 2000 begin.
_MAGIC = (
    b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51",
)  # fmt: skip
_AFRESH = {"CPL_VSIL_CURL_NON_CACHED": "/vsis3/:/vsigs/:/vsiaz/"}
_STATUS = re.compile(r"HTTP (?:response|error) code(?: on \S+)?\s*:?\s*(\d{3})", re.IGNORECASE)
# How curl words transient failures, in GDAL's errors.
_PASSING = re.compile(
    r"connection (?:was )?reset|empty reply|recv failure|transfer closed",
    re.IGNORECASE,
)
_UNREACHABLE = re.compile(
    r"connection (?:was )?refused|resolve host|could not connect|failed to connect|"
    r"timed out|timeout",
    re.IGNORECASE,
)


class OpenFiles:
    """Raster files that stay open between reads, each read by one thread at a time.

    Any thread may read, and several may read one file, which is then open more than once. A file on
    this disk that has changed, or of which a source (of a VRT) has, is opened anew. It goes through
    pickle empty.

    Parameters
    ----------
    most : int, optional
        How many are kept; those that were read longest ago are closed. By default a quarter of
        what the process may open, up to 128.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = _most_open() if most is None else most
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._idle: dict[int, _Idle] = {}  # in the order in which they were read
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenFiles, (self._most,)

    @contextmanager
    def dataset(self, path: str) -> Iterator[Any]:
        """Yield the open file; failures of GDAL become `ImageryError`."""
        with _ours(path), environment(path):
            kept = self._taken(path)
            if kept is None:
                dataset = _open(path)
                kept = _Idle(path, dataset, _states(_files_of(path, dataset)))
            yield kept.dataset
            # One that fails is not kept: it remembers what it failed to read.
            self._keep(kept)

    def _taken(self, path: str) -> _Idle | None:
        if self._process != os.getpid():
            # A fork shares the position in each file with its parent, which moves it.
            self._of_parent = self._idle
            self._begin()
        while True:
            with self._lock:
                last = next((n for n, kept in self._idle.items() if kept.path == path), None)
                kept = None if last is None else self._idle.pop(last)
            if kept is None or kept.states == _states(kept.states):
                return kept

    def _keep(self, kept: _Idle) -> None:
        with self._lock:
            self._idle[id(kept)] = kept
            # Their last reference ends here, which closes them.
            for number in list(self._idle)[: -self._most]:
                del self._idle[number]


@dataclass(frozen=True, eq=False)
class _Idle:
    """An open file that nobody reads."""

    path: str
    dataset: Any
    states: Mapping[str, tuple[int, ...] | None]  # of the files on this disk, when it was opened


def _most_open() -> int:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 128
    return int(min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4, 128))


def _files_of(path: str, dataset: Any) -> list[str]:
    """Return the files of which an image on this disk is made, and those that may be added."""
    if is_on_the_web(local_path(path)):
        return []
    files = dict.fromkeys([path, *dataset.files])
    return [name for file in files for name in (file, *(f"{file}{end}" for end in _BESIDE))]


def _states(paths: Iterable[str]) -> dict[str, tuple[int, ...] | None]:
    """Return what changes when files on this disk do."""
    return {path: _state(path) for path in paths}


def _state(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def may_pass(failure: BaseException) -> bool:
    """Return whether reading failed for a transient reason on a server."""
    return any(isinstance(exc, ImageryError) and exc.transient for exc in causes(failure))


def read_again(path: str, read: Callable[[], Read]) -> Read:
    """Return ``read()`` of a file, at once tried again a few times if it is on a server.

    Many files make a place, and each time that one of them fails costs one of its tries.
    """
    for _ in range(_AT_ONCE_AGAIN if is_on_the_web(path) else 0):
        try:
            return read()
        except ImageryError as exc:
            if not is_unread(exc) or _statuses(exc):
                raise
    return read()


def tried_again() -> Callable[[Exception], bool]:
    """Return the rule by which one read of files on servers is tried again after an error.

    Transient errors always are, but hosts that cannot be reached, or do not answer, seldom recover.
    A file that GDAL cannot decode is a few times, since damaged files are not told from damaged
    answers, and one that is missing or refused once.
    """
    undecoded, unreachable = itertools.count(), itertools.count()

    def passes(error: Exception) -> bool:
        if not _statuses(error) and any(_UNREACHABLE.search(str(exc)) for exc in causes(error)):
            return next(unreachable) < _CONNECT_AGAIN
        if may_pass(error):
            return True
        refused = _statuses(error) or any(_MISSING in str(exc) for exc in causes(error))
        return is_unread(error) and next(undecoded) < (1 if refused else _UNDECODED_AGAIN)

    return passes


def is_unread(failure: BaseException) -> bool:
    """Return whether GDAL failed to read, for any reason but a VRT on a server."""
    from rasterio.errors import RasterioError

    found = list(causes(failure))
    if any(str(exc).startswith(_VRT_REFUSED) for exc in found):
        return False
    return any(isinstance(exc, RasterioError) for exc in found)


def is_denied(failure: BaseException) -> bool:
    """Return whether a server refused access to a file, e.g. because a token expired."""
    return not {401, 403}.isdisjoint(_statuses(failure))


def _statuses(failure: BaseException) -> list[int]:
    """Return the HTTP status codes that an error and its causes name."""
    return [int(code) for exc in causes(failure) for code in _STATUS.findall(str(exc))]


@contextmanager
def open_file(path: str, kept: OpenFiles | None = None) -> Iterator[Any]:
    """Open a raster file; failures of GDAL until it is closed become `ImageryError`."""
    if kept is not None:
        with kept.dataset(path) as dataset:
            yield dataset
        return
    with _ours(path), environment(path), _open(path) as dataset:
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


def may_wait(path: str) -> bool:
    """Return whether reading a path may wait for a server: sources of a VRT may be on one."""
    return is_on_the_web(path) or path.lower().endswith(".vrt")


@contextmanager
def environment(path: str) -> Iterator[None]:
    """Read with GDAL's options for the network, or for this disk; entered again, it costs less."""
    import rasterio

    options = _NETWORK if is_on_the_web(local_path(path)) else _ON_THIS_DISK
    options = options | stated_gdal_http(options)
    if rasterio.env.hasenv() and options.items() <= rasterio.env.getenv().items():
        yield
        return
    with rasterio.Env(**options):
        yield


def _open(path: str) -> Any:
    """Return the opened file; one that failed before is requested again."""
    import rasterio
    from rasterio.io import DatasetReader

    address = local_path(path)
    if address.lstrip().startswith("<"):
        raise ImageryError(f"got the text {address.strip()[:40]!r} as imagery, expected a path")
    try:
        named = b"\0" not in os.fsencode(address)
    except UnicodeEncodeError:
        named = False
    if not named:
        raise ImageryError(f"got {address!r} as imagery, which cannot be the name of a file")
    if not is_on_the_web(address):
        check_content(address)
    drivers = _drivers(address)
    # rasterio.open takes one driver only before version 1.5.
    opened = partial(DatasetReader, driver=drivers, sharing=False)
    if not _FAILED[path]:
        dataset = opened(address)
    elif urlsplit(address).scheme in ("http", "https"):
        # Nothing is known of a URL with a new fragment, which servers are not sent.
        dataset = opened(f"/vsicurl/{address}#{_FAILED[path]}")
    else:
        with rasterio.Env(**_AFRESH):
            dataset = opened(address)
    check_opened(dataset, shown_path(path))
    return dataset


def _drivers(address: str) -> list[str]:
    """Return the drivers of GDAL that may open a file: its content does not choose among others."""
    if is_on_the_web(address):
        return list(_ON_THE_WEB)
    suffix = os.path.splitext(address)[1].lower()
    if suffix == ".vrt" and not address.startswith("/vsi"):
        check_vrt(address)
        return ["VRT"]
    drivers = list(_BY_SUFFIX.get(suffix, PLAIN))
    # Raw pixels behind a link would be the bytes of whatever it leads to.
    return [name for name in drivers if name != "ENVI" or not os.path.islink(address)]


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
            _FAILED[path] += 1
        transient = False
        if os.path.isdir(path):
            reason = "it is a folder"
        else:
            # GDAL may name a file by the end of its URL only.
            query = "".join(path.partition("?")[1:])
            reason = str(exc.__cause__ or exc).replace(path, shown).replace(query, "")
            reason = re.sub(rf"(?:/vsicurl/)?{re.escape(shown)}(?:#\d+)?", shown, reason)
            if is_on_the_web(local_path(path)):
                transient = _passes(exc) or (_FOREIGN in reason and _is_faulty(path, shown))
        missing = "No such file" in reason
        fix = "check the path" if missing else f"check it with: rio info {shlex.quote(shown)}"
        message = f"cannot read {shown!r} as an image ({reason}); {fix}"
        error = ImageryError(message, transient=transient)
        if shown != path:
            raise error from None  # a traceback would show the credentials in it
        raise error from exc


def _passes(failure: BaseException) -> bool:
    """Return whether GDAL names a transient failure of a server."""
    if any(map(is_passing, _statuses(failure))):
        return True
    texts = list(map(str, causes(failure)))
    return any(_PASSING.search(text) or _UNREACHABLE.search(text) for text in texts)


def _is_faulty(url: str, shown: str) -> bool:
    """Return whether the server gave something else for a file that it has.

    It now gives the file, or a page that a proxy shows in its place. A VRT is refused.
    """
    address = url.removeprefix("/vsicurl/")
    begin = first_bytes(address) if urlsplit(address).scheme in ("http", "https") else None
    if begin is not None and begin.lstrip().startswith(b"<VRTDataset"):
        raise ImageryError(
            f"{_VRT_REFUSED}, {shown!r}, whose sources cannot be checked, expected a GeoTIFF "
            "or JPEG 2000; name these, or read a VRT of them from this disk"
        ) from None
    return begin is not None and (is_page(begin) or begin.startswith(_MAGIC))
