"""Requests to a STAC API: retries, and their errors as ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rs_embed._optional import require
from rs_embed.addresses import STAC_BYTES, local_path, read_document
from rs_embed.errors import ProviderError
from rs_embed.files.gdal import shown_path
from rs_embed.providers.retrying import Patience

if TYPE_CHECKING:
    from pystac_client.stac_api_io import StacApiIO

PASSING_CODES = (408, 429, 500, 502, 503, 504)
# Seconds: to connect, and between two chunks of an answer; searches of long periods are slow.
_TIMEOUT_S = (10, 60)
# More threads search at once only if the caller configures them.
_CONNECTIONS = 32
_SHOWN = 160
_CONNECT_AGAIN = 3


def api_io(patience: Patience) -> StacApiIO:
    """Return the IO of pystac-client with retries of requests that may succeed later.

    Raises
    ------
    MissingDependencyError
        If pystac-client is not installed.
    """
    stac_api_io = require("pystac_client.stac_api_io", extra="stac", purpose="backend='stac'")
    from pystac_client.exceptions import APIError
    from requests.adapters import HTTPAdapter
    from requests.exceptions import ChunkedEncodingError
    from urllib3 import Retry

    class BoundedRetry(Retry):
        """Follows ``Retry-After`` unless it exceeds the patience."""

        def get_retry_after(self, response: Any) -> float | None:
            seconds = super().get_retry_after(response)
            if seconds is not None and seconds > patience.timeout_s:
                raise ProviderError(
                    f"answered HTTP {response.status} and asks to wait {seconds:.0f} s, longer "
                    f"than patience lasts ({patience.timeout_s:g} s); use fewer fetch_workers, or "
                    "try again later",
                    transient=True,
                    retry_after_s=seconds,
                )
            return seconds

    retries = BoundedRetry(
        total=patience.attempts - 1,
        # A host without an address or that refuses connections seldom recovers within seconds.
        connect=min(_CONNECT_AGAIN, patience.attempts - 1),
        status_forcelist=PASSING_CODES,
        allowed_methods=None,  # a search is a POST that changes nothing
        backoff_factor=patience.wait_initial_s,
        backoff_max=patience.wait_max_s,
        backoff_jitter=patience.wait_initial_s,
        raise_on_status=False,  # the last answer says more than "too many retries"
    )

    class PatientIO(stac_api_io.StacApiIO):  # type: ignore[misc, name-defined]
        """Retries truncated answers, which urllib3 leaves to its callers."""

        def request(self, *args: Any, **kwargs: Any) -> str:
            for _ in range(patience.attempts - 1):
                try:
                    return str(super().request(*args, **kwargs))
                except APIError as exc:
                    if not isinstance(exc.__context__, ChunkedEncodingError):
                        raise
            return str(super().request(*args, **kwargs))

    io: StacApiIO = PatientIO(max_retries=None, timeout=_TIMEOUT_S)
    for scheme in ("http://", "https://"):
        io.session.mount(scheme, HTTPAdapter(max_retries=retries, pool_maxsize=_CONNECTIONS))
    return io


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
        if isinstance(exc.__context__, ProviderError):
            raise exc.__context__.restated(f"{where} {exc.__context__}") from exc
        status = getattr(exc, "status_code", None)
        if status is not None:
            raise refused(where, status, str(exc)) from exc
        if isinstance(exc.__context__, UnicodeDecodeError):
            raise _not_json(where, exc.__context__) from exc
        raise _unreachable(where, exc.__context__ or exc) from exc
    except requests.JSONDecodeError as exc:
        raise _not_json(where, exc) from exc
    except requests.RequestException as exc:
        raise _unreachable(where, exc) from exc
    except (ValueError, RecursionError) as exc:
        raise _not_json(where, exc) from exc
    except OSError as exc:
        raise ProviderError(f"cannot read {where} ({exc}); correct the catalogue") from exc


def refused(where: str, status: int, text: str) -> ProviderError:
    """Return the error for an HTTP status that reports a failure."""
    transient = status in PASSING_CODES
    fix = {
        401: "it requires an account, which is not supported; use another catalogue",
        403: "it refuses access; use another catalogue, or a network that it accepts",
        404: "there is nothing at this address; correct the catalogue",
        429: "it accepts no more requests for now; use fewer fetch_workers, or try again later",
    }.get(status, "try again later" if transient else "correct the catalogue")
    shown = " ".join(text.split())[:_SHOWN]
    return ProviderError(
        f"{where} answered HTTP {status} ({shown or 'no text'}): {fix}", transient=transient
    )


def _unreachable(where: str, exc: BaseException) -> ProviderError:
    import requests

    # requests does not say which of them it is if all retries failed.
    lasting = isinstance(exc, requests.exceptions.SSLError | requests.exceptions.InvalidURL)
    truncated = requests.exceptions.ChunkedEncodingError
    passing = isinstance(exc, requests.ConnectionError | requests.Timeout | truncated)
    reason = str(exc).partition(" (Caused by ")[2].removesuffix(")") or str(exc)
    reason = re.sub(r"^\w+\(|HTTPS?Connection\([^)]*\): |[\"']", "", reason).removesuffix(")")
    return ProviderError(
        f"cannot reach {where} ({reason[:_SHOWN]}); check the network and the address",
        transient=passing and not lasting,
    )


def _not_json(where: str, exc: Exception) -> ProviderError:
    return ProviderError(
        f"{where} answered something that is not JSON ({str(exc)[:_SHOWN]}), expected STAC; "
        "correct the address of the catalogue, or log in to the network first if it "
        "shows a page of its own"
    )
