"""Where files are: the paths that ``file:`` and ``zip:`` URLs name, and URLs without secrets."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

_FILE_URL = re.compile(r"file:(?://(?:localhost)?(?=/))?", re.IGNORECASE)
_ZIP_URL = re.compile(r"zip:(?://)?(?P<archive>[^!]+)!/?(?P<member>.+)", re.IGNORECASE)
_WEB = ("http://", "https://", "s3://", "gs://", "az://")
_BUCKET = re.compile(r"(s3|gs|az)(?=://)", re.IGNORECASE)
_WINDOWS_DRIVE = re.compile(r"/(?=[A-Za-z]:)")


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
    folder = os.path.dirname(home)
    raw, decoded = (os.path.normpath(os.path.join(folder, p)) for p in (path, unquote(path)))
    return decoded if not os.path.exists(raw) and os.path.exists(decoded) else raw


def path_of(address: str | os.PathLike[str]) -> Path:
    """Return what `local_path` returns, as a `pathlib.Path`."""
    return Path(local_path(address))


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
