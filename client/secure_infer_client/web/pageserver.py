"""HTTP on loopback: the page's files, and what it asks. Nothing is logged, and nothing may be cached."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from secure_infer import address
from secure_infer.errors import SecureInferError, SettingsError
from secure_infer_client.web.door import Door, Refused

Api = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""What is asked and its JSON object -> a JSON object; raises SecureInferError."""

API = "api/"
BODY_BYTES = 256 << 10
CONNECTIONS = 32
PATIENCE = 15.0
"""Seconds that a request may take to arrive."""

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
HEADERS = {
    "Cache-Control": "no-store",
    # Nothing but the page's own files and its own questions; no inline script or style, no frame around it.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class PageServer(ThreadingHTTPServer):
    """Serves until `shutdown`; `door.url` is the address to open. api: answers what the page asks, on several threads.

    host: a loopback address; port: 0 takes a free one. Raises SettingsError for any other host, or a port in use.
    """

    daemon_threads = True
    request_queue_size = CONNECTIONS

    def __init__(self, api: Api, host: str = "127.0.0.1", port: int = 0) -> None:
        if not address.is_loopback(host):
            raise SettingsError(
                f"--host: expected a loopback address, got {host!r}; the page shows texts, and is for this machine alone"
            )
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host.strip("[]"), port), _Handler)
        except OSError as error:
            raise SettingsError(f"--port: {port} cannot be had ({error.strerror})") from None
        bound, self.port = str(self.server_address[0]), int(self.server_address[1])
        if not address.is_loopback(bound):  # a name that resolves elsewhere
            self.server_close()
            raise SettingsError(f"--host: {host!r} is {bound} here; expected a loopback address")
        shown = f"[{bound}]" if ":" in bound else bound
        self.door = Door((f"{shown}:{self.port}", f"localhost:{self.port}"))
        self.api = api
        self.files = files()
        self._free = threading.BoundedSemaphore(CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is nobody's business; its trace could hold a request."""


def files() -> dict[str, tuple[bytes, str]]:
    """The page's files by path, with their types; "" is the page."""
    found = {}
    for file in (resources.files(__package__) / "page").iterdir():
        kind = TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            name = "" if file.name == "index.html" else file.name
            found[name] = (file.read_bytes(), f"{kind}; charset=utf-8")
    return found


class _Handler(BaseHTTPRequestHandler):
    """One request a connection (HTTP/1.0): no bytes are left that could be taken for another."""

    server: PageServer
    timeout = PATIENCE

    def handle_one_request(self) -> None:
        with suppress(ConnectionError, TimeoutError):
            super().handle_one_request()

    def do_GET(self) -> None:
        self._guarded(self._file)

    def do_HEAD(self) -> None:
        self._guarded(self._file)

    def do_POST(self) -> None:
        self._guarded(self._asked)

    def _guarded(self, answer: Callable[[str], None]) -> None:
        try:
            answer(self.server.door.admit(self.command, self.path, self.headers))
        except Refused as refused:
            self._sentence(refused.status, refused.sentence)

    def _file(self, name: str) -> None:
        if name not in self.server.files:
            raise Refused(HTTPStatus.NOT_FOUND, "There is no such file.")
        data, kind = self.server.files[name]
        self._send(HTTPStatus.OK, data, kind)

    def _asked(self, name: str) -> None:
        if not name.startswith(API):
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "Files are read, not written.")
        name, asked = name.removeprefix(API), self._object()
        try:
            found = self.server.api(name, asked)
        except SecureInferError as error:
            self._json(HTTPStatus.UNPROCESSABLE_ENTITY, {"error": error.message, "reason": error.reason})
        except Exception as error:
            # Its text may hold what was asked.
            sentence = f"Something went wrong here that nobody foresaw ({type(error).__name__}); nothing is known of the answer."
            self._json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": sentence, "reason": "INTERNAL_FAULT"})
        else:
            self._json(HTTPStatus.OK, found)

    def _object(self) -> Mapping[str, Any]:
        """The body, a JSON object; raises Refused."""
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Expected application/json.")
        lengths = self.headers.get_all("Content-Length") or []
        if (
            "Transfer-Encoding" in self.headers
            or len(lengths) != 1
            or not (lengths[0].isascii() and lengths[0].isdigit())
        ):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "Expected one Content-Length.")
        if len(lengths[0]) > 9 or int(lengths[0]) > BODY_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Expected at most {BODY_BYTES:,} bytes.")
        data = self.rfile.read(int(lengths[0]))
        try:
            found = json.loads(data.decode())
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "Expected a JSON object.")
        return found

    def _json(self, status: HTTPStatus, found: Mapping[str, Any]) -> None:
        self._send(status, json.dumps(found, allow_nan=False).encode(), "application/json")

    def _sentence(self, status: HTTPStatus, sentence: str) -> None:
        self._send(status, f"{sentence}\n".encode(), "text/plain; charset=utf-8")

    def _send(self, status: HTTPStatus, data: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library refuses by itself: methods, lines and headers that are none. Its own page would repeat them."""
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._sentence(status, f"{status.phrase}.")

    def version_string(self) -> str:
        return "secure-infer"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: paths hold the token."""
