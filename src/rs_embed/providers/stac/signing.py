"""Signed URLs of Planetary Computer: a token per collection, renewed before it ends.

The package ``planetary-computer`` goes by the host's name alone and cannot renew a token that was
refused.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rs_embed.addresses import shown_path
from rs_embed.errors import ProviderError
from rs_embed.files.dates import in_utc
from rs_embed.providers.scenes.scene import BandAt, Scene
from rs_embed.providers.stac.web import asking, refused

if TYPE_CHECKING:
    from requests import Session

# Seconds before its end at which a token is replaced: a read that began with it may take long.
_MARGIN_S = 300
# Messages of these loggers of rasterio may contain a URL with its token.
_TALKATIVE = ("_base", "_env", "_err", "_io", "_warp", "env", "vrt")
_SIGNATURE = re.compile(r"\?[^\s'\"<>?]*\bsig=[^\s'\",<>]*")


class Signer:
    """Signs hrefs with tokens of ``{address}/token/{collection}``; any thread may use it."""

    def __init__(self, address: str, session: Session) -> None:
        self._address = address
        self._session = session
        # Collection -> token, and its end by `time.monotonic`: the clock may be wrong.
        self._tokens: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()
        for name in _TALKATIVE:
            logging.getLogger(f"rasterio.{name}").addFilter(_without_signature)

    def token(self, collection: str) -> str:
        """Return a token that is valid for a few minutes at least.

        Raises
        ------
        ProviderError
            If the service returns none.
        """
        with self._lock:
            known = self._tokens.get(collection)
            if known is None or time.monotonic() >= known[1]:
                known = self._tokens[collection] = self._request(collection)
            return known[0]

    def forget(self, collection: str, token: str) -> None:
        """Drop a token that was refused, unless another thread has replaced it."""
        with self._lock:
            if self._tokens.get(collection, ("", 0))[0] == token:
                del self._tokens[collection]

    def _request(self, collection: str) -> tuple[str, float]:
        href = f"{self._address}/token/{collection}"
        with asking(href):
            began = time.monotonic()
            answer = self._session.get(href)
            if not answer.ok:
                raise refused(repr(shown_path(href)), answer)
            content = answer.json()
        try:
            text = str(content["token"])
            lasts_s = _seconds_left(str(content["msft:expiry"]), answer.headers.get("Date"))
        except (KeyError, TypeError, ValueError) as exc:
            raise ProviderError(
                f"{shown_path(href)!r} did not answer with a token ({type(exc).__name__}: {exc}), "
                "expected 'token' and 'msft:expiry'; check the address of the service"
            ) from exc
        return text, began + lasts_s - min(_MARGIN_S, lasts_s / 2)


@lru_cache(maxsize=4096)
def signed(scene: Scene, token: str, service: str) -> Scene:
    """Return ``scene`` with a token on each of its URLs that has no query of its own.

    Only Azure's blob storage and the host of the ``service`` are sent the token.
    """
    own = urlsplit(service).hostname

    def sign(place: BandAt) -> BandAt:
        parts = urlsplit(place.path)
        host = parts.hostname or ""
        trusted = host == own or host.endswith(".blob.core.windows.net")
        fits = parts.scheme in ("http", "https") and trusted and not parts.query
        return replace(place, path=f"{place.path}?{token}") if fits else place

    return replace(
        scene,
        bands={name: sign(place) for name, place in scene.bands.items()},
        scl=None if scene.scl is None else sign(scene.scl),
    )


def _seconds_left(expiry: str, date: str | None) -> float:
    """Return how long a token is valid, by the server's own clock if it states the time."""
    now = datetime.now(UTC) if date is None else parsedate_to_datetime(date)
    return (in_utc(datetime.fromisoformat(expiry)) - now).total_seconds()


def _without_signature(record: logging.LogRecord) -> bool:
    """Remove signatures from a log record."""
    message = record.getMessage()
    if "sig=" in message:
        record.msg, record.args = _SIGNATURE.sub("?(signed)", message), ()
    return True
