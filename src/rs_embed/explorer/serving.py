"""Serve a folder to the browsers of this machine."""

from __future__ import annotations

import errno
import threading
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rs_embed.errors import SpecError
from rs_embed.specs import whole

HOST = "127.0.0.1"
_OCTETS = "application/octet-stream"


class _Handler(SimpleHTTPRequestHandler):
    """Files of the folder, and nothing else."""

    # Not those of the machine, which may lack some.
    extensions_map = {  # noqa: RUF012  # as the base class
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css",
        ".html": "text/html; charset=utf-8", ".json": "application/json",
        ".wasm": "application/wasm", ".png": "image/png", ".jpg": "image/jpeg",
        ".svg": "image/svg+xml", ".i8": _OCTETS, ".u8": _OCTETS, ".u32": _OCTETS,
    }  # fmt: skip

    def list_directory(self, path: Any) -> None:  # noqa: ARG002
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # as the base class
        """Print nothing."""


class Server:
    """A thread that serves ``folder`` on 127.0.0.1; it ends with the process, or with `close`.

    Raises
    ------
    SpecError
        If the port is not one, or in use.
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self._server = _bound(partial(_Handler, directory=str(folder)), port)
        self.url = f"http://{HOST}:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def check_port(port: int | None) -> None:
    """Raise `SpecError` if ``port`` cannot be served at."""
    _bound(_Handler, port).server_close()


def _bound(handler: Any, port: int | None) -> ThreadingHTTPServer:
    port = 0 if port is None else whole("port", port, 1)
    try:
        return ThreadingHTTPServer((HOST, port), handler)
    except OverflowError as exc:
        raise SpecError(f"got port={port}, expected 1 to 65535") from exc
    except OSError as exc:
        why = "is in use" if exc.errno == errno.EADDRINUSE else f"cannot be opened ({exc})"
        raise SpecError(
            f"got port={port}, which {why}; choose another one, or leave it out for a free one"
        ) from exc
