"""Errors of Earth Engine and its client as ours: what was got, and how to fix it."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rs_embed.errors import ProviderError
from rs_embed.files.dates import in_utc
from rs_embed.printable import excerpt

Result = TypeVar("Result")

NO_CREDENTIALS = "no credentials; run: earthengine authenticate"
NO_PROJECT = (
    "no project; set EE_PROJECT to a Google Cloud project that is registered for Earth Engine, or "
    "use EarthEngineProvider(project=...)"
)
# Why nothing answered, in words.
_UNREACHABLE: Mapping[type[BaseException], str] = {
    socket.gaierror: "its name cannot be resolved",
    ConnectionRefusedError: "it refuses connections",
    TimeoutError: "it does not answer",
}
# Its messages end with the address of the page that fixes them.
_MOST = 1000
# What the service says of a request that it might do in smaller parts.
_TOO_MUCH = ("user memory limit exceeded", "computation timed out", "total request size")
_TRANSIENT_STATUS = (408, 429)
_TOO_MANY_FIX = (
    "make fewer requests at once (EarthEngineProvider(max_requests=...)), or raise the project's "
    "quota"
)
_ENABLE = "enable the Earth Engine API for the project (link above)"
_REGISTER = "register the project: https://code.earthengine.google.com/register"
_NAME_BANDS = "name bands that the collection has, with sensor=SensorSpec(...)"
_NAME_COLLECTION = "correct the collection's name, or ask its owner for access"
# What the service says when it refuses a request -> how to fix it; the first that fits counts.
_FIXES = {
    "has not been used in project": _ENABLE,
    "or it is disabled": _ENABLE,
    "quota": "wait until it is renewed, or raise it: Quotas & System Limits of the project",
    "not registered": _REGISTER,
    "signed up": _REGISTER,
    "permission to use project": "give the account the role Service Usage Consumer in the project, "
    "or use another one (EE_PROJECT, or project=)",
    "band pattern": _NAME_BANDS,
    "no band": _NAME_BANDS,
    "not found": _NAME_COLLECTION,
    "does not exist": _NAME_COLLECTION,
}
_STATUS_FIXES = {
    401: "run: earthengine authenticate",
    403: "check the account's roles in the project",
}


class PageError(ConnectionError):
    """The answer is a page for people, not the service's."""


def too_much(error: ProviderError) -> bool:
    """Return whether the service may do in smaller parts what it refused."""
    reason = str(error.__cause__).lower()
    return any(words in reason for words in _TOO_MUCH)


def guarded(request: Callable[[], Result]) -> Result:
    """Return what ``request`` returns; its errors become ours, see `translated`."""
    import ee
    import google.auth.exceptions
    import googleapiclient.errors
    import httplib2

    try:
        return request()
    except (
        ee.EEException,
        googleapiclient.errors.Error,
        google.auth.exceptions.GoogleAuthError,
        httplib2.HttpLib2Error,
        OSError,  # connections and time-outs, also of requests
    ) as exc:
        raise translated(exc) from exc


def translated(exc: BaseException) -> ProviderError:
    """Return our error for one of the client's.

    Messages quote what the service says, never a URL or a header, which may hold keys.
    """
    import google.auth.exceptions as auth

    response = _response(exc)
    if response is not None:
        return _refused(int(response.status), _reason(exc), response)
    if isinstance(exc, auth.DefaultCredentialsError):
        return ProviderError(f"Earth Engine cannot be used: {NO_CREDENTIALS}")
    if isinstance(exc, auth.TransportError):
        return _disconnected(exc)
    if isinstance(exc, auth.GoogleAuthError):
        first = str(exc.args[0])[:200] if exc.args else ""  # the second is a whole answer
        return ProviderError(
            f"Google does not accept the credentials ({type(exc).__name__}: {first}); run: "
            "earthengine authenticate (or renew the key of the service account)",
            transient=bool(getattr(exc, "retryable", False)),
        )
    if isinstance(exc, PageError):
        return not_the_service()
    if isinstance(exc, OSError):
        return _disconnected(exc)
    reason = excerpt(str(exc), _MOST)
    if "authorize access" in reason:
        return ProviderError(
            "Earth Engine cannot be used: Google no longer accepts the stored credentials; "
            "run: earthengine authenticate --force"
        )
    if "no project found" in reason:
        return ProviderError(f"Earth Engine cannot be used: {NO_PROJECT}")
    return ProviderError(f"Earth Engine's client failed: {type(exc).__name__}: {reason}")


def _response(exc: BaseException) -> Any:
    """Return the HTTP response that an exception is about, None without one."""
    found = (getattr(one, "resp", None) for one in (exc, exc.__context__, exc.__cause__))
    return next((response for response in found if response is not None), None)


def _reason(exc: BaseException) -> str:
    reason = getattr(exc, "reason", None)
    return excerpt(str(reason if reason else exc), _MOST)


def not_the_service() -> ProviderError:
    """Return the error for an answer that is not Earth Engine's."""
    return ProviderError(
        "something other than Earth Engine answered, perhaps a proxy or a login page of the "
        "network; check these and try again",
        transient=True,
    )


def _disconnected(exc: BaseException) -> ProviderError:
    *_, innermost = chain = list(_chain(exc))
    reason = _unreachable(chain)
    urls = (getattr(getattr(one, "request", None), "url", None) for one in chain)
    hosts = (urlsplit(str(url)).hostname for url in urls if url)
    host = next(filter(None, hosts), "the service")
    return ProviderError(
        f"Earth Engine: the connection to {host} failed ({reason or type(innermost).__name__}); "
        "check the network and try again",
        transient=True,
    )


def is_unreachable(error: ProviderError) -> bool:
    """Return whether nothing answered at all, which seldom changes within seconds."""
    return _unreachable(list(_chain(error))) is not None


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes."""
    deeper: BaseException | None = exc
    while deeper is not None:
        yield deeper
        deeper = deeper.__cause__ or deeper.__context__


def _unreachable(chain: Sequence[BaseException]) -> str | None:
    """Return why nothing answered, in words; None if something did."""
    kinds = (kind for kind in _UNREACHABLE if any(isinstance(one, kind) for one in chain))
    return next((_UNREACHABLE[kind] for kind in kinds), None)


def _refused(status: int, reason: str, response: Any) -> ProviderError:
    """Return the error for an answer that reports a failure."""
    if any(words in reason.lower() for words in _TOO_MUCH):
        return ProviderError(
            f"Earth Engine cannot compute this much at once (HTTP {status}: {reason}); request a "
            "smaller place, a shorter period or a smaller cloudy_pct"
        )
    if status in _TRANSIENT_STATUS or status >= 500:
        fix = _TOO_MANY_FIX if status == 429 else "try again later"
        return ProviderError(
            f"Earth Engine is busy or failing (HTTP {status}: {reason}); {fix}",
            transient=True,
            retry_after_s=_retry_after_s(response),
        )
    if status < 400:
        return not_the_service()
    fixes = (fix for words, fix in _FIXES.items() if words in reason.lower())
    fix = next(fixes, _STATUS_FIXES.get(status, "report it with the request that was made"))
    return ProviderError(f"Earth Engine refuses the request (HTTP {status}: {reason}); {fix}")


def _retry_after_s(response: Any) -> float | None:
    """Return the seconds that the header Retry-After states, as a number or as a date."""
    headers = {str(k).lower(): v for k, v in dict(response).items()}
    stated = headers.get("retry-after")
    if stated is None:
        return None
    try:
        seconds = float(stated)
    except ValueError:
        try:
            # By the server's own clock if it states the time: ours may be wrong.
            now = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
            seconds = (in_utc(parsedate_to_datetime(stated)) - in_utc(now)).total_seconds()
        except ValueError:
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
