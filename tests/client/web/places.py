"""Places for tests of the page's parts: one that answers without a server, and what an HTTP client needs to reach it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from secure_infer.errors import InvalidInput
from secure_infer_client.web.pageserver import PageServer


def echo(name: str, asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """An API that answers with what it was asked; "refuse" and "break" are errors."""
    if name == "refuse":
        raise InvalidInput("text: expected one, got none")
    if name == "break":
        raise LookupError(f"a text: {asked}")
    return {"name": name, "asked": dict(asked)}


@contextmanager
def served(api: Any = echo) -> Iterator[PageServer]:
    server = PageServer(api)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def ask(
    server: PageServer, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """A request with exactly these headers (and Host, unless they have one): status, headers and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        given = {"Host": server.door.hosts[0], **(headers or {})}
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in given.items():
            connection.putheader(name, value)
        if body is not None and "Content-Length" not in given and "Transfer-Encoding" not in given:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def post(server: PageServer, name: str, asked: Any, **headers: str) -> tuple[int, Any]:
    """What the page itself would ask: status and the JSON answered."""
    own = {"Origin": f"http://{server.door.hosts[0]}", "Content-Type": "application/json", **headers}
    status, _, data = ask(server, "POST", f"/{server.door.token}/api/{name}", json.dumps(asked).encode(), own)
    return status, json.loads(data)
