"""Earth Engine's client: the account, one initialisation, one limit of requests."""

from __future__ import annotations

import importlib.util
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4
from weakref import WeakKeyDictionary

from rs_embed._optional import install, require
from rs_embed._version import __version__
from rs_embed.addresses import check_regular, read_document
from rs_embed.errors import ProviderError, UnknownNameError
from rs_embed.providers.earth_engine.failures import (
    NO_CREDENTIALS,
    NO_PROJECT,
    PageError,
    guarded,
    not_the_service,
)
from rs_embed.providers.sharing import Turns
from rs_embed.settings import EE_ENDPOINT, google_credentials, stated_google_credentials

Result = TypeVar("Result")

ENDPOINTS = {
    "standard": "https://earthengine.googleapis.com",
    "high-volume": "https://earthengine-highvolume.googleapis.com",
}
WORKLOAD_TAG = "rs-embed"
# Tells our sessions from those that the user began.
_AGENT = f"rs-embed/{__version__}"
_CONNECT_S = 20.0
_DESCRIPTION_S = 30.0  # describing the API takes the service no computing
_POOL = 40  # connections: as many requests as the service takes at once
_ORIGINS: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def url_of(endpoint: str) -> str:
    """Return the URL of an endpoint, given by name or as the URL itself.

    Raises
    ------
    UnknownNameError
        If it is neither.
    """
    if endpoint.startswith(("https://", "http://")):
        return endpoint.rstrip("/")
    if endpoint in ENDPOINTS:
        return ENDPOINTS[endpoint]
    raise UnknownNameError.among(
        f"Earth Engine endpoint (endpoint= or {EE_ENDPOINT.name})", endpoint, [*ENDPOINTS, "a URL"]
    )


@dataclass(frozen=True, eq=False)
class Account:
    """The account that requests count to, the service's address, and how long to wait for it."""

    project: str | None  # None is the one in the credentials
    credentials: Any  # of google.auth; None is what is stored on this machine
    endpoint: str
    timeout_s: float  # seconds after which a request without an answer is given up
    # The same for copies of the same credentials, which pickle makes; None without any.
    origin: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.credentials is not None:
            origin = _ORIGINS.setdefault(self.credentials, uuid4().hex)
            object.__setattr__(self, "origin", origin)

    @property
    def url(self) -> str:
        """URL of the service; `UnknownNameError` if the endpoint is invalid."""
        return url_of(self.endpoint)

    @property
    def shown_endpoint(self) -> str:
        """Name of the endpoint, or its URL without what may be secret in it."""
        if self.endpoint in ENDPOINTS:
            return self.endpoint
        parts = urlsplit(self.url)
        port = "" if parts.port is None else f":{parts.port}"
        return f"{parts.scheme}://{parts.hostname}{port}"

    def has_credentials(self) -> bool:
        """Return whether some were given or are stored on this machine."""
        return self.credentials is not None or any(p.is_file() for p in google_credentials())

    def carried_project(self) -> str | None:
        """Return the project that the credentials name, read from their file."""
        if self.credentials is not None:
            return _project_of(self.credentials)
        stored = next((path for path in google_credentials() if path.is_file()), None)
        return None if stored is None else _project_in(stored)

    def missing(self) -> str | None:
        """Return what is not configured and how to fix it; None if nothing is missing."""
        if importlib.util.find_spec("ee") is None:
            return f"the package earthengine-api is not installed; {install('gee')}"
        if not self.has_credentials():
            stated = stated_google_credentials()
            if stated is None:
                return NO_CREDENTIALS
            return (
                f"GOOGLE_APPLICATION_CREDENTIALS names {str(stated)!r}, which is not a file; "
                "correct it, or unset it and run: earthengine authenticate"
            )
        if not (self.project or self.carried_project()):
            return NO_PROJECT
        return None


class Session:
    """Requests to Earth Engine on behalf of an account, at most ``max_requests`` at once."""

    def __init__(self, account: Account, max_requests: int) -> None:
        self.account = account
        self._turns = Turns(max_requests)

    def client(self) -> ModuleType:
        """Return the client, initialised.

        Raises
        ------
        ProviderError
            If it cannot be, or is already for another account.
        MissingDependencyError
            If it is not installed.
        """
        ee = require("ee", extra="gee", purpose="backend='gee'")
        with _LOCK:
            _initialise(ee, self.account)
        return ee

    def value(self, expression: Any) -> Any:
        """Return what an expression evaluates to, tried once; raise as `guarded`."""
        ee = self.client()
        try:
            return self._once(lambda: ee.data.computeValue(expression))
        except (KeyError, TypeError, UnicodeDecodeError) as exc:  # no JSON object with a result
            raise not_the_service() from exc

    def pixels(self, expression: Any, grid: dict[str, Any]) -> bytes:
        """Return an NPY file of an image's pixels on a grid, tried once; raise as `guarded`."""
        ee = self.client()
        wanted = {"expression": expression, "fileFormat": "NPY", "grid": grid}
        answer = self._once(lambda: ee.data.computePixels(wanted))
        return answer if isinstance(answer, bytes) else str(answer).encode()

    def _once(self, request: Callable[[], Result]) -> Result:
        with self._turns:
            return guarded(request)


_LOCK = threading.Lock()
# Project and account of the session that we began: the client knows one for the whole process.
_begun: list[tuple[str, Account]] = []


def is_users(ee: ModuleType) -> bool:
    """Return whether the client was initialised by the user."""
    return bool(ee.data.is_initialized()) and ee.data.getUserAgent() != _AGENT


def _initialise(ee: ModuleType, account: Account) -> None:
    # A session of the user's is left as it is: the client's own retries (5 by default) then come
    # before ours, and its deadline, endpoint and tag are the user's as well.
    if is_users(ee):
        return
    if ee.data.is_initialized() and _begun:
        _check_same(account, *_begun[-1])
        return
    url = account.url  # errors that need no request come first
    if account.has_credentials() and (missing := account.missing()) is not None:
        raise ProviderError(f"Earth Engine cannot be used: {missing}")
    credentials = guarded(lambda: _credentials(ee, account))
    project = account.project or _project_of(credentials) or account.carried_project()
    if project is None:
        raise ProviderError(f"Earth Engine cannot be used: {NO_PROJECT}")
    ee.data.setMaxRetries(0)  # the client's ignore Retry-After; ours do not
    try:
        guarded(
            lambda: ee.Initialize(
                credentials=credentials,
                url=url,
                project=project,
                http_transport=_transport(account.timeout_s),
            )
        )
    except ProviderError:
        ee.Reset()  # half a session would be taken for one of the user's, without retries
        raise
    ee.data.setUserAgent(_AGENT)
    ee.data.setDefaultWorkloadTag(WORKLOAD_TAG)
    _begun[:] = [(project, account)]


def _check_same(account: Account, project: str, first: Account) -> None:
    if account.project not in (None, project) or account.url != first.url:
        raise ProviderError(
            f"got project {account.project!r} at {account.shown_endpoint}, but Earth Engine was "
            f"initialised for project {project!r} at {first.shown_endpoint} before, and its "
            "client knows one session per process; use that one, another process, or call "
            "ee.Reset() in between"
        )
    if account.credentials is not None and account.origin != first.origin:
        raise ProviderError(
            "got other credentials than those that Earth Engine was initialised with before, and "
            "its client knows one session per process; use those, another process, or call "
            "ee.Reset() in between"
        )


def _credentials(ee: ModuleType, account: Account) -> Any:
    """Return the credentials to use; a service account's need their scopes to be set."""
    import google.auth
    from google.auth.credentials import with_scopes_if_required

    if account.credentials is not None:
        return with_scopes_if_required(  # type: ignore[no-untyped-call]
            account.credentials, ee.oauth.SCOPES
        )
    own, *others = google_credentials()
    try:
        for path in (own, *others):  # which may be opened by Google's library
            check_regular(path)
    except OSError as exc:
        raise ProviderError(f"the credentials cannot be read: {exc}") from exc
    if own.is_file():
        _project_in(own)  # its error message is better
        return ee.data.get_persistent_credentials()
    credentials, _ = google.auth.default(scopes=ee.oauth.SCOPES)
    return credentials


def _project_of(credentials: Any) -> str | None:
    found = (getattr(credentials, name, None) for name in ("quota_project_id", "project_id"))
    return next((project for project in found if isinstance(project, str) and project), None)


def _project_in(path: Path) -> str | None:
    try:
        content = json.loads(read_document(path))
    except (OSError, ValueError, RecursionError) as exc:
        raise ProviderError(
            f"the credentials in {path} cannot be read ({type(exc).__name__}); run: earthengine "
            "authenticate"
        ) from exc
    names = ("project", "quota_project_id", "project_id")
    found = [content.get(name) for name in names] if isinstance(content, dict) else []
    return next((str(project) for project in found if project), None)


def _transport(timeout_s: float) -> Any:
    """Return the HTTP transport: it has time-outs, also for discovery and tokens."""
    import httplib2
    import requests

    # One per process: on connections shared by a fork, one would read the other's answers.
    sessions: dict[int, requests.Session] = {}

    def session() -> requests.Session:
        kept = requests.Session()
        for scheme in ("https://", "http://"):
            kept.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=_POOL))
        return sessions.setdefault(os.getpid(), kept)

    class Transport:
        def request(
            self, uri: str, method: str = "GET", body: Any = None, headers: Any = None, **_: Any
        ) -> tuple[Any, bytes]:
            kept = sessions.get(os.getpid()) or session()
            answer_s = min(timeout_s, _DESCRIPTION_S) if method == "GET" else timeout_s
            answer = kept.request(
                method, uri, data=body, headers=headers, timeout=(_CONNECT_S, answer_s)
            )
            if answer.ok and answer.headers.get("Content-Type", "").startswith("text/html"):
                raise PageError
            status = {**answer.headers, "status": str(answer.status_code)}
            return httplib2.Response(status), answer.content

        def close(self) -> None:
            for kept in sessions.values():
                kept.close()

    return Transport()
