"""A loopback server that speaks the Hugging Face hub's HTTP for one repository."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Files of ``repo``, what to do wrong, and the requests that came in.

    With the fault "silent" it says what it has, and never sends it.
    """

    repo: str
    files: Mapping[str, bytes]
    fault: str = ""
    url: str = ""
    requests: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Run the server; ``hub.url`` is what ``HF_ENDPOINT`` should be."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            prefix = f"/{hub.repo}/resolve/"
            if hub.fault == "silent" and body:
                hub.ended.wait()
                self.close_connection = True
                return None
            if hub.fault == "gated":
                return self.refuse(403, "GatedRepo")
            if not self.path.startswith(prefix):
                return self.refuse(404, "RepoNotFound")
            revision, _, name = self.path.removeprefix(prefix).partition("/")
            if revision not in ("main", "v1", COMMIT):
                return self.refuse(404, "RevisionNotFound")
            if name not in hub.files:
                return self.refuse(404, "EntryNotFound")
            content = hub.files[name]
            digest = hashlib.sha256(content).hexdigest()
            if hub.fault == "damaged" and name != "config.json":
                content = content[:-8] + b"\0" * 7 + b"\1"
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{digest}"')
            self.send_header("Content-Length", str(len(content)))
            if name != "config.json":  # large files are kept apart, by their SHA-256
                self.send_header("X-Linked-Etag", f'"{digest}"')
                self.send_header("X-Linked-Size", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)
            return None

        def refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        hub.ended.set()
        server.shutdown()
        server.server_close()
        thread.join(60)
