"""Failures of Earth Engine and its client, made ours: what was got, and how to mend it."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rs_embed.errors import ProviderError

Result = TypeVar("Result")

NO_CREDENTIALS = "no credentials; run: earthengine authenticate"
NO_PROJECT = (
    "no project; set EE_PROJECT to a Google Cloud project that is registered for Earth Engine, or "
    "use EarthEngineProvider(project=...)"
)
# Why nothing answered, in words.
_UNREACHABLE: Mapping[type[BaseException], str] = {
    socket.gaierror: "its name cannot be resolved",
    ConnectionRefusedError: "it takes no connection",
    TimeoutError: "it does not answer",
}
# What the service says of a request that it might do in smaller parts.
_TOO_MUCH = ("user memory limit exceeded", "computation timed out", "total request size")
_TRANSIENT_STATUS = (408, 429)


class PageError(ConnectionError):
    """A page for people came where the service should have answered."""


def too_much(error: ProviderError) -> bool:
    """Return whether the service may do in smaller parts what it refused."""
    said = str(error.__cause__).lower()
    return any(words in said for words in _TOO_MUCH)


def guarded(request: Callable[[], Result]) -> Result:
    """Return what ``request`` returns, its failures as ours; see `translated`."""
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
        OSError,  # connections and time-outs, those of requests as well
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
        lasting = not getattr(exc, "retryable", False)
        return ProviderError(
            f"Google does not accept the credentials ({type(exc).__name__}: {_said_of(exc)}); run: "
            "earthengine authenticate (or renew the service account's key)",
            transient=not lasting,
        )
    if isinstance(exc, PageError):
        return stranger()
    if isinstance(exc, OSError):
        return _disconnected(exc)
    said = str(exc)
    if "authorize access" in said:
        return ProviderError(
            "Earth Engine cannot be used: Google does not accept the stored credentials any more; "
            "run: earthengine authenticate --force"
        )
    if "no project found" in said:
        return ProviderError(f"Earth Engine cannot be used: {NO_PROJECT}")
    return ProviderError(f"Earth Engine's client fails: {type(exc).__name__}: {said}")


def _response(exc: BaseException) -> Any:
    """Return the answer that an exception is about, None if there was none."""
    for one in (exc, exc.__context__, exc.__cause__):
        response = getattr(one, "resp", None)
        if response is not None:
            return response
    return None


def _reason(exc: BaseException) -> str:
    reason = getattr(exc, "reason", None)
    return " ".join(str(reason if reason else exc).split())


def _said_of(exc: BaseException) -> str:
    """Return the first, short argument of an exception: the second is a whole answer."""
    return str(exc.args[0])[:200] if exc.args else ""


def stranger() -> ProviderError:
    """Return the error for an answer that is not Earth Engine's."""
    return ProviderError(
        "something else than Earth Engine answered; a proxy or a login page of the network may "
        "stand in its place, look there and try again",
        transient=True,
    )


def _disconnected(exc: BaseException) -> ProviderError:
    *_, innermost = chain = list(_chain(exc))
    said = next((why for kind, why in _UNREACHABLE.items() if _any(chain, kind)), None)
    asked = (getattr(getattr(one, "request", None), "url", None) for one in chain)
    hosts = (urlsplit(str(url)).hostname for url in asked if url)
    host = next(filter(None, hosts), "the service")
    return ProviderError(
        f"Earth Engine: the connection to {host} failed ({said or type(innermost).__name__}); "
        "check the network and try again",
        transient=True,
    )


def nobody_there(error: ProviderError) -> bool:
    """Return whether nothing answered at all, which waiting for seconds seldom mends."""
    chain = list(_chain(error))
    return any(_any(chain, kind) for kind in _UNREACHABLE)


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it comes from."""
    deeper: BaseException | None = exc
    while deeper is not None:
        yield deeper
        deeper = deeper.__cause__ or deeper.__context__


def _any(chain: Sequence[BaseException], kind: type[BaseException]) -> bool:
    return any(isinstance(one, kind) for one in chain)


def _refused(status: int, said: str, response: Any) -> ProviderError:
    """Return the error for an answer that is none."""
    lower = said.lower()
    if any(words in lower for words in _TOO_MUCH):
        return ProviderError(
            f"Earth Engine cannot do this much at once (HTTP {status}: {said}); ask for a smaller "
            "place, a shorter period or a smaller cloudy_pct"
        )
    if status in _TRANSIENT_STATUS or status >= 500:
        relief = (
            "fewer requests at once (EarthEngineProvider(max_requests=...)), or a greater quota of "
            "the project"
            if status == 429
            else "try again later"
        )
        return ProviderError(
            f"Earth Engine is busy or failing (HTTP {status}: {said}); {relief}",
            transient=True,
            retry_after_s=_retry_after_s(response),
        )
    if status < 400:
        return stranger()
    mends = (
        (
            "has not been used in project",
            "switch the Earth Engine API on for the project (link above)",
        ),
        ("or it is disabled", "switch the Earth Engine API on for the project (link above)"),
        ("quota", "wait until it is renewed, or raise it: Quotas & System Limits of the project"),
        ("not registered", "register the project: https://code.earthengine.google.com/register"),
        ("signed up", "register the project: https://code.earthengine.google.com/register"),
        (
            "permission to use project",
            "give the account the role Service Usage Consumer in the project, or name another one "
            "(EE_PROJECT, or project=)",
        ),
        ("band pattern", "name bands that the collection has, with sensor=SensorSpec(...)"),
        ("no band", "name bands that the collection has, with sensor=SensorSpec(...)"),
        ("not found", "correct the collection's name, or ask its owner for access"),
        ("does not exist", "correct the collection's name, or ask its owner for access"),
    )
    mend: str | None = next((then for words, then in mends if words in lower), None)
    if mend is None and status == 401:
        mend = "run: earthengine authenticate"
    if mend is None and status == 403:
        mend = "look up the account's roles in the project"
    return ProviderError(
        f"Earth Engine refuses the request (HTTP {status}: {said}); "
        f"{mend or 'report it with the request that was made'}"
    )


def _retry_after_s(response: Any) -> float | None:
    """Return the seconds that the header Retry-After states, itself or as a date."""
    stated = {str(k).lower(): v for k, v in dict(response).items()}.get("retry-after")
    if stated is None:
        return None
    try:
        seconds = float(stated)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(stated).timestamp() - time.time()
        except ValueError:
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
