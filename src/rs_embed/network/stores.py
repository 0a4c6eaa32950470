"""Object stores, and other file systems that fsspec reaches by URL."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rs_embed.addresses import shown_path
from rs_embed.errors import ExportError, MissingDependencyError, RsEmbedError
from rs_embed.parallel.pipeline import ordered
from rs_embed.printable import excerpt

# ``file:`` and ``zip:`` URLs are paths on this disk, see `rs_embed.addresses`.
_URL = re.compile(r"(?!(?:file|zip):)(?P<protocol>[a-z][a-z0-9+.-]+)://", re.IGNORECASE)
# A password of a user, or a query, in which keys may be.
_SECRET = re.compile(r"://[^/@]*:[^/@]*@|\?")
_AT_ONCE = 8
# Errors of a program. File systems raise those of any other class: of their own, or OSError.
_BUGS = (AssertionError, AttributeError, LookupError, MemoryError, NameError, TypeError)


def is_store(address: object) -> bool:
    """Return whether this is the URL of a file system other than this disk."""
    return isinstance(address, str) and _URL.match(address) is not None


@dataclass(frozen=True)
class Store:
    """A file or folder on a file system of fsspec.

    Attributes
    ----------
    url : str
        Its URL.
    root : str
        Its path on that file system.
    files : fsspec.AbstractFileSystem
        The file system.
    error : type
        Class of the errors that its failures become.
    """

    url: str
    root: str
    files: Any
    error: type[RsEmbedError]

    @classmethod
    def of(cls, url: str, error: type[RsEmbedError] = ExportError) -> Store:
        """Return the store with a URL; its content is not read.

        Raises
        ------
        RsEmbedError
            Of the class ``error``, if fsspec has no such protocol, it is that of web pages, or the
            URL holds credentials.
        MissingDependencyError
            If the package of the protocol is not installed.
        """
        import fsspec
        from fsspec.registry import known_implementations

        if _SECRET.search(url):
            raise error(
                f"got {shown_path(url)} with a password or a query, expected a URL without: the "
                "package of the protocol takes credentials from its own settings (s3fs: "
                "AWS_PROFILE, ~/.aws)"
            )
        protocol = url.partition(":")[0].lower()
        if protocol in ("http", "https"):
            raise error(
                f"got {url}, expected a local path or an object store (s3://, gs://, "
                "az://): web servers keep no files for others"
            )
        try:
            files, root = fsspec.core.url_to_fs(url)
        except ImportError as exc:
            package = known_implementations[protocol]["class"].partition(".")[0]
            raise MissingDependencyError(
                f"{protocol}:// needs the package {package!r} ({exc}); install it with: "
                f"pip install {package}"
            ) from exc
        except (OSError, ValueError, TypeError) as exc:
            raise error(
                f"got {url}, not an address of an object store that fsspec knows "
                f"({excerpt(shown_path(str(exc)))}); expected s3://, gs://, az:// or a local path"
            ) from exc
        files.invalidate_cache()  # others write there too
        return cls(url, root.rstrip("/"), files, error)

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Raise the errors of the file system as ``error``: "cannot ``doing`` <URL> ..."."""
        try:
            yield
        except (RsEmbedError, *_BUGS):
            raise
        except Exception as exc:
            reason = f"{type(exc).__name__}: {excerpt(shown_path(str(exc)), 300)}"
            raise self.error(
                f"cannot {doing} {self.url} ({reason}); check that the bucket exists, your "
                "credentials for it, and the network"
            ) from exc

    def kind(self, suffix: str = "") -> str | None:
        """Return "file" or "directory", None if there is neither, at ``root`` with a suffix."""
        try:
            return str(self.files.info(self.root + suffix)["type"])
        except FileNotFoundError:
            return None

    def each(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Generator[Any, None, None]:
        """Yield ``work(item)`` for each item, in order, done in threads until it is closed."""
        return ordered(items, work, workers=_AT_ONCE, ahead=_AT_ONCE)
