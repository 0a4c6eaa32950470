"""Requests to a STAC API: retries, and their errors as ours."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rs_embed._optional import require
from rs_embed.addresses import STAC_BYTES, local_path, read_document, shown_path
from rs_embed.errors import ProviderError, causes
from rs_embed.network.answers import is_page, is_passing, retry_after_s, why_unreachable
from rs_embed.network.retrying import Patience, is_transient
from rs_embed.printable import excerpt

if TYPE_CHECKING:
    from pystac_client.stac_api_io import StacApiIO
    from requests import PreparedRequest, Response

# Seconds: to connect, and between two chunks of an answer; searches of long periods are slow.
_TIMEOUT_S = (10, 60)
# More threads search at once only if the caller configures them.
_CONNECTIONS = 32
_CHUNK_BYTES = 65_536
# The largest answer that is read: a page of items has a few megabytes.
_MOST_BYTES = 100_000_000
# A host without an address, or where nothing answers, seldom recovers within seconds.
_CONNECT_AGAIN = 3


class PageInsteadError(ProviderError):
    """A page for people was answered in place of JSON."""


def api_io(patience: Patience) -> StacApiIO:
    """Return the IO of pystac-client, which tries each request until it is answered completely.

    Raises
    ------
    MissingDependencyError
        If pystac-client is not installed.
    """
    stac_api_io = require("pystac_client.stac_api_io", extra="stac", purpose="backend='stac'")
    from requests.adapters import HTTPAdapter

    class PatientAdapter(HTTPAdapter):
        """Reads whole answers; a failure that may pass, or a page for people, is tried again."""

        def send(self, request: PreparedRequest, *_: Any, **options: Any) -> Response:
            href = str(request.url)
            options |= {"stream": True, "timeout": _TIMEOUT_S}
            disconnected = itertools.count()

            def once() -> Response:
                with asking(href):
                    answer = super(PatientAdapter, self).send(request, **options)
                    # requests has no limit of its own.
                    answer._content = _body(answer, href)
                if is_passing(answer.status_code):
                    raise refused(repr(shown_path(href)), answer)
                if answer.ok and is_page(answer.content):
                    raise _page(href)
                return answer

            def passes(error: Exception) -> bool:
                if why_unreachable(error) is not None and next(disconnected) >= _CONNECT_AGAIN:
                    return False
                return is_transient(error)

            return patience.persist(once, passes=passes, what=repr(shown_path(href)))

    io: StacApiIO = stac_api_io.StacApiIO(max_retries=None)
    for scheme in ("http://", "https://"):
        io.session.mount(scheme, PatientAdapter(pool_maxsize=_CONNECTIONS))
    return io


def _body(answer: Response, href: str) -> bytes:
    """Return what was answered, unless it is too large."""
    body = bytearray()
    for chunk in answer.iter_content(_CHUNK_BYTES):
        body += chunk
        if len(body) > _MOST_BYTES:
            answer.close()
            raise ProviderError(
                f"{shown_path(href)!r} answered more than {_MOST_BYTES // 10**6} MB, expected a "
                "page of items; correct the address of the catalogue"
            )
    return bytes(body)


def read_json(io: StacApiIO, href: str) -> Any:
    """Return the JSON at a URL or path; raise as `asking`, also if it is not JSON."""
    path = local_path(href)
    with asking(href):
        return json.loads(io.read_text(href) if "://" in path else read_document(path, STAC_BYTES))


@contextmanager
def asking(href: str) -> Iterator[None]:
    """Turn errors of a request into ours, which name ``href``.

    Raises
    ------
    ProviderError
        Transient where the same request may succeed later.
    """
    import requests
    from pystac_client.exceptions import APIError

    where = repr(shown_path(href))
    try:
        yield
    except APIError as exc:
        inner = exc.__context__
        if isinstance(inner, ProviderError):
            raise inner.restated(str(inner)) from exc
        status = getattr(exc, "status_code", None)
        if status is not None:
            raise _refused(where, status, str(exc)) from exc
        if isinstance(inner, UnicodeDecodeError):
            raise _not_json(where, inner) from exc
        raise _unreachable(where, inner or exc) from exc
    except requests.JSONDecodeError as exc:
        raise _not_json(where, exc) from exc
    except requests.RequestException as exc:
        raise _unreachable(where, exc) from exc
    except (ValueError, RecursionError) as exc:
        raise _not_json(where, exc) from exc
    except OSError as exc:
        raise ProviderError(f"cannot read {where} ({exc}); correct the catalogue") from exc


def refused(where: str, answer: Response) -> ProviderError:
    """Return the error for an answer that reports a failure."""
    wait_s = retry_after_s(answer.headers)
    return _refused(where, answer.status_code, answer.text, wait_s)


def _refused(where: str, status: int, text: str, wait_s: float | None = None) -> ProviderError:
    transient = is_passing(status)
    fix = {
        401: "it requires an account, which is not supported; use another catalogue",
        403: "it refuses access; use another catalogue, or a network that it accepts",
        404: "there is nothing at this address; correct the catalogue",
        429: "it accepts no more requests for now; use fewer fetch_workers, or try again later",
        511: "the network requires a login first; log in with a browser",
    }.get(status, "try again later" if transient else "correct the catalogue")
    asks = "" if wait_s is None else f" and asks to wait {wait_s:.0f} s"
    return ProviderError(
        f"{where} answered HTTP {status} ({excerpt(text) or 'no text'}){asks}: {fix}",
        transient=transient,
        retry_after_s=wait_s,
    )


def _unreachable(where: str, exc: BaseException) -> ProviderError:
    import requests

    # requests does not say which of them it is if all retries failed.
    lasting = isinstance(exc, requests.exceptions.SSLError | requests.exceptions.InvalidURL)
    truncated = requests.exceptions.ChunkedEncodingError
    passing = isinstance(exc, requests.ConnectionError | requests.Timeout | truncated)
    cut_off = "the answer was cut off" if isinstance(exc, truncated) else None
    reason = why_unreachable(exc) or cut_off or str(list(causes(exc))[-1])
    return ProviderError(
        f"cannot reach {where} ({excerpt(reason)}); check the network and the address",
        transient=passing and not lasting,
    )


def _page(href: str) -> PageInsteadError:
    return PageInsteadError(
        f"{shown_path(href)!r} answered a page for people, expected JSON; log in to the network "
        "first if it shows such a page, or correct the address of the catalogue",
        transient=True,
    )


def _not_json(where: str, exc: Exception) -> ProviderError:
    return ProviderError(
        f"{where} answered something that is not JSON ({excerpt(str(exc))}), expected STAC; "
        "correct the address of the catalogue, or log in to the network first if it "
        "shows a page of its own"
    )
