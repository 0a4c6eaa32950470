"""A loopback STAC API with its COGs, tokens and faults, as clients meet them over HTTP."""

from __future__ import annotations

import copy
import json
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

CORE = "https://api.stacspec.org/v1.0.0/core"
SEARCH = "https://api.stacspec.org/v1.0.0/item-search"
TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"


@dataclass
class Request:
    """What came in, and what is answered, known before it is sent."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: Any
    at: float
    status: int = 0
    size: int = 0


@dataclass
class Fault:
    """What to do wrong with requests whose path matches, a number of times.

    Attributes
    ----------
    path : str
        Regular expression, searched for in the path.
    kind : str
        ``"429"`` and other codes, ``"reset"``, ``"truncate"`` or ``"html"``.
    times : int
        How often; later requests are answered as usual.
    retry_after : str or None
        What the header of that name says.
    skip : int
        How many requests that match are answered as usual before.
    share : float
        Of the requests that match, drawn.
    """

    path: str
    kind: str
    times: int = 10**9
    retry_after: str | None = None
    skip: int = 0
    share: float = 1


@dataclass
class StacServer:
    """What is served: items by collection, files by the first part of their path, and faults.

    ``tokens`` are valid for ``token_s`` seconds, and blobs under ``/blob/`` demand one of their
    collection, which is the second part of their path. ``clock`` is how far the server's own clock
    is ahead. Where it ``repeats``, the page after each is the same one.
    """

    items: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    page: int = 100
    repeats: bool = False
    post: bool = True
    latency_s: float = 0
    token_s: float = 3600
    clock: timedelta = timedelta()
    tokens: dict[str, tuple[str, float]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    peak: int = 0
    url: str = ""
    now: int = 0
    drawn: random.Random = field(default_factory=lambda: random.Random(20))  # noqa: S311
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, folder: Path, name: str = "files") -> None:
        """Serve the items below a folder, their relative hrefs as URLs of its files."""
        self.folders[name] = folder
        for path in sorted(folder.glob("*/*.json")):
            item = json.loads(path.read_text())
            for asset in item["assets"].values():
                href = asset["href"].removeprefix("./")
                asset["href"] = f"{self.url}/{name}/{path.parent.name}/{href}"
            self.items.setdefault(item["collection"], []).append(item)

    def paths(self, pattern: str, method: str = "") -> list[str]:
        """Return the paths of the requests that match, in the order they came."""
        return [r.path for r in self.requests if re.search(pattern, r.path) and method in r.method]

    def fault(self, path: str) -> Fault | None:
        """Return what is to be done wrong now, counting it."""
        with self.lock:
            for fault in self.faults:
                if re.search(fault.path, path) and self.drawn.random() < fault.share:
                    if fault.skip:
                        fault.skip -= 1
                    elif fault.times:
                        fault.times -= 1
                        return fault
        return None

    def sign(self, collection: str) -> dict[str, str]:
        """Return a new token."""
        with self.lock:
            token = f"sv=1&sig=hush{len(self.tokens)}{collection}"
            self.tokens[token] = (collection, time.monotonic() + self.token_s)
        expiry = datetime.now(UTC) + self.clock + timedelta(seconds=self.token_s)
        return {"msft:expiry": expiry.strftime("%Y-%m-%dT%H:%M:%SZ"), "token": token}

    def found(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the items of a search, newest first."""
        wanted = asked.get("collections") or list(self.items)
        items = [item for name in wanted for item in self.items.get(name, ())]
        if "bbox" in asked:
            west, south, east, north = (float(v) for v in asked["bbox"])
            items = [
                i for i in items
                if i["bbox"][0] <= east and west <= i["bbox"][2]
                and i["bbox"][1] <= north and south <= i["bbox"][3]
            ]  # fmt: skip
        if asked.get("datetime"):
            start, _, end = asked["datetime"].partition("/")
            first, last = _moment(start, late=False), _moment(end or start, late=True)
            items = [i for i in items if first <= _moment(_day(i), late=False) <= last]
        return sorted(items, key=_day, reverse=True)

    @contextmanager
    def running(self) -> Iterator[StacServer]:
        """Serve until the end."""
        server = _never_used(_handler(self))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join(60)


_PORTS: set[int] = set()


def _never_used(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    """Return a server at a port that had none yet: GDAL remembers what a URL gave."""
    refused = []
    try:
        while (server := ThreadingHTTPServer(("127.0.0.1", 0), handler)).server_port in _PORTS:
            refused.append(server)
    finally:
        for other in refused:
            other.server_close()
    _PORTS.add(server.server_port)
    return server


def _day(item: Mapping[str, Any]) -> str:
    said = item["properties"]
    return str(said["datetime"] or said["start_datetime"])


def _moment(text: str, *, late: bool) -> datetime:
    """Return an end of an interval; a bare date means its whole day."""
    if text in ("", ".."):
        return (datetime.max if late else datetime.min).replace(tzinfo=UTC)
    if len(text) == 10:
        text += "T23:59:59.999999Z" if late else "T00:00:00Z"
    return datetime.fromisoformat(text)


def _handler(state: StacServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # header and body would wait for each other
        came: Request
        cut = False

        def do_HEAD(self) -> None:
            self.handle_one()

        def do_GET(self) -> None:
            self.handle_one()

        def do_POST(self) -> None:
            self.handle_one()

        def handle_one(self) -> None:
            with state.lock:
                state.now += 1
                state.peak = max(state.peak, state.now)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            parts = urlsplit(self.path)
            self.came = Request(
                self.command, parts.path, parts.query, dict(self.headers), body, time.monotonic()
            )
            with state.lock:
                state.requests.append(self.came)
            try:
                time.sleep(state.latency_s)
                fault = state.fault(parts.path)
                if fault is not None:
                    self.fail(fault)
                if fault is None or fault.kind == "truncate":
                    self.cut = fault is not None
                    self.answer(parts.path, parts.query, body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            finally:
                with state.lock:
                    state.now -= 1

        def fail(self, fault: Fault) -> None:
            if fault.kind == "reset":
                linger = struct.pack("ii", 1, 0)  # RST instead of FIN
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                self.connection.close()
            elif fault.kind == "html":
                self.send(200, b"<html><body>Sign in</body></html>", "text/html")
            elif fault.kind != "truncate":
                more = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
                self.send(int(fault.kind), b"slow down", "text/plain", more)

        def answer(self, path: str, query: str, body: Any) -> None:
            said = {key: values[0] for key, values in parse_qs(query).items()}
            if path in ("/", ""):
                self.send_json(self.landing())
            elif path == "/collections":
                self.send_json({"collections": [self.collection(c) for c in state.items],
                                "links": []})  # fmt: skip
            elif path.startswith("/collections/"):
                name = path.removeprefix("/collections/")
                known = name in state.items
                self.send_json(
                    self.collection(name) if known else {"code": "NotFoundError"},
                    200 if known else 404,
                )
            elif path == "/search":
                self.search(said if body is None else body)
            elif path.startswith("/sas/token/"):
                name = path.removeprefix("/sas/token/")
                known = name in state.items
                self.send_json(state.sign(name) if known else {}, 200 if known else 404)
            elif path.startswith("/blob/") and not self.signed(path, query):
                self.send(403, b"<Error><Code>AuthenticationFailed</Code></Error>", "text/xml")
            else:
                self.serve_file(path.removeprefix("/blob"))

        def signed(self, path: str, query: str) -> bool:
            collection, until = state.tokens.get(query, ("", 0.0))
            return collection == path.split("/")[2] and time.monotonic() < until

        def landing(self) -> dict[str, Any]:
            links = [
                {"rel": "self", "href": state.url, "type": "application/json"},
                {"rel": "root", "href": state.url, "type": "application/json"},
                {"rel": "data", "href": f"{state.url}/collections", "type": "application/json"},
                {"rel": "search", "href": f"{state.url}/search", "type": "application/geo+json",
                 "method": "GET"},
            ]  # fmt: skip
            if state.post:
                links.append({**links[-1], "method": "POST"})
            return {
                "type": "Catalog", "id": "loopback", "stac_version": "1.0.0",
                "description": "a test", "conformsTo": [CORE, SEARCH], "links": links,
            }  # fmt: skip

        def collection(self, name: str) -> dict[str, Any]:
            days = [*sorted(_day(item) for item in state.items[name]), None]
            extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]},
                      "temporal": {"interval": [[days[0], None]]}}  # fmt: skip
            return {
                "type": "Collection", "id": name, "stac_version": "1.0.0", "description": name,
                "license": "proprietary", "extent": extent, "links": [],
            }  # fmt: skip

        def search(self, asked: dict[str, Any]) -> None:
            for key in ("bbox", "collections"):
                if isinstance(asked.get(key), str):
                    asked[key] = asked[key].split(",")
            found = state.found(asked)
            start = int(asked.get("token", 0))
            stop = start + min(int(asked.get("limit", 10)), state.page)
            after = start if state.repeats else stop
            links: list[dict[str, Any]] = []
            if stop < len(found) and self.command == "POST":
                links = [{"rel": "next", "href": f"{state.url}/search", "method": "POST",
                          "body": {**asked, "token": str(after)}}]  # fmt: skip
            elif stop < len(found):
                flat = {k: ",".join(map(str, v)) if isinstance(v, list) else v
                        for k, v in asked.items()}  # fmt: skip
                text = "&".join(f"{k}={v}" for k, v in {**flat, "token": after}.items())
                links = [{"rel": "next", "href": f"{state.url}/search?{text}"}]
            features = copy.deepcopy(found[start:stop])
            self.send_json({"type": "FeatureCollection", "features": features, "links": links})

        def serve_file(self, path: str) -> None:
            _, name, rest = path.split("/", 2) if path.count("/") > 1 else ("", "", "")
            folder = state.folders.get(name)
            file = None if folder is None else folder / rest
            if file is None or not file.is_file():
                self.send(404, b"no such file", "text/plain")
                return
            content = file.read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            more = {"Accept-Ranges": "bytes"}
            status = 200
            if asked:
                first = int(asked[1])
                last = min(int(asked[2] or len(content) - 1), len(content) - 1)
                if first >= len(content):
                    self.send(416, b"", TIFF, {"Content-Range": f"bytes */{len(content)}"})
                    return
                more["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
                content, status = content[first : last + 1], 206
            kind = "application/json" if file.suffix == ".json" else TIFF
            self.send(status, content, kind, more)

        def send_json(self, content: Any, status: int = 200) -> None:
            self.send(status, json.dumps(content).encode(), "application/json")

        def send(
            self,
            status: int,
            content: bytes,
            kind: str,
            more: Mapping[str, str] | None = None,
        ) -> None:
            self.came.status = status
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            for key, value in (more or {}).items():
                self.send_header(key, value)
            self.end_headers()
            self.came.size = 0 if self.command == "HEAD" else len(content)
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if self.cut else content)
            if self.cut:
                self.close_connection = True

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(datetime.now(UTC) + state.clock, usegmt=True)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


Serve = Callable[..., StacServer]
