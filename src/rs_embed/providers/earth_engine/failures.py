"""Errors of Earth Engine and its client as ours: what was got, and how to fix it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rs_embed.errors import ProviderError, causes
from rs_embed.network.answers import is_passing, retry_after_s, why_unreachable
from rs_embed.printable import excerpt

Result = TypeVar("Result")

NO_CREDENTIALS = "no credentials; run: earthengine authenticate"
NO_PROJECT = (
    "no project; set EE_PROJECT to a Google Cloud project that is registered for Earth Engine, or "
    "use EarthEngineProvider(project=...)"
)
# Its messages end with the address of the page that fixes them.
_MOST = 1000
# What the service says of a request that it might do in smaller parts.
_TOO_MUCH = ("user memory limit exceeded", "computation timed out", "total request size")
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
    *_, innermost = chain = list(causes(exc))
    reason = why_unreachable(exc)
    urls = (getattr(getattr(one, "request", None), "url", None) for one in chain)
    hosts = (urlsplit(str(url)).hostname for url in urls if url)
    host = next(filter(None, hosts), "the service")
    return ProviderError(
        f"Earth Engine: the connection to {host} failed ({reason or type(innermost).__name__}); "
        "check the network and try again",
        transient=True,
    )


def _refused(status: int, reason: str, response: Any) -> ProviderError:
    """Return the error for an answer that reports a failure."""
    if any(words in reason.lower() for words in _TOO_MUCH):
        return ProviderError(
            f"Earth Engine cannot compute this much at once (HTTP {status}: {reason}); request a "
            "smaller place, a shorter period or a smaller cloudy_pct"
        )
    headers = {str(name).title(): value for name, value in dict(response).items()}
    if is_passing(status):
        fix = _TOO_MANY_FIX if status == 429 else "try again later"
        return ProviderError(
            f"Earth Engine is busy or failing (HTTP {status}: {reason}); {fix}",
            transient=True,
            retry_after_s=retry_after_s(headers),
        )
    if status < 400:
        return not_the_service()
    fixes = (fix for words, fix in _FIXES.items() if words in reason.lower())
    fix = next(fixes, _STATUS_FIXES.get(status, "report it with the request that was made"))
    return ProviderError(f"Earth Engine refuses the request (HTTP {status}: {reason}); {fix}")
