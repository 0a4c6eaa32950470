"""What an answer over HTTP means: whether the same request may succeed later, and when."""

from __future__ import annotations

import math
import re
import socket
import time
import urllib.request
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http.client import HTTPException

from rs_embed.errors import causes

# Status codes of failures that pass: RFC 9110 (408, 500, 502 to 504), RFC 8470 (425), RFC 6585
# (429), and those of Cloudflare, which stands before many catalogues. All others are final, such
# as 501 (not implemented), 505 or 511 (log in to the network first).
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
_LOOK_S = 20
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)

# Why nothing answered, in words.
_UNREACHABLE: Mapping[type[BaseException], str] = {
    socket.gaierror: "its name cannot be resolved",
    ConnectionRefusedError: "it refuses connections",
    TimeoutError: "it does not answer",
}


def is_passing(status: int) -> bool:
    """Return whether a request that was answered with an HTTP status may succeed later."""
    return status in _PASSING


def is_page(body: bytes) -> bool:
    """Return whether a body is an HTML page, which a proxy or a login shows in place of data."""
    return _PAGE.match(body[:1024]) is not None


def first_bytes(url: str, most: int = 1024) -> bytes | None:
    """Return how a file on the web begins now; None if the request fails."""
    wanted = urllib.request.Request(url, headers={"Range": f"bytes=0-{most - 1}"})  # noqa: S310
    try:
        with urllib.request.urlopen(wanted, timeout=_LOOK_S) as answer:  # noqa: S310
            body: bytes = answer.read(most)
    except (OSError, ValueError, HTTPException):
        return None
    return body


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a header ``Retry-After`` states, as a number or as a date.

    None if there is no such header, or it states neither (RFC 9110, section 10.2.3). A date counts
    by the server's own clock if it states the time: ours may be wrong.
    """
    stated = headers.get("Retry-After")
    if stated is None:
        return None
    try:
        seconds = float(stated)
    except ValueError:
        try:
            now = parsedate_to_datetime(headers["Date"]).timestamp() if "Date" in headers else None
            until = parsedate_to_datetime(stated).timestamp()
        except (ValueError, OverflowError):
            return None
        seconds = until - (time.time() if now is None else now)
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def why_unreachable(error: BaseException) -> str | None:
    """Return why nothing answered, in words; None if something did."""
    chain = list(causes(error))
    kinds = (kind for kind in _UNREACHABLE if any(isinstance(one, kind) for one in chain))
    return next((_UNREACHABLE[kind] for kind in kinds), None)
