"""The page's HTTP: who is let in, and what hostile requests get."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from client.web.places import ask, post, served
from secure_infer.errors import SettingsError
from secure_infer_client.web.pageserver import BODY_BYTES, CONNECTIONS, PageServer, files


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    with served() as running:
        yield running


def page(server: PageServer, name: str = "") -> str:
    return f"/{server.door.token}/{name}"


def own(server: PageServer, **more: str) -> dict[str, str]:
    return {"Origin": f"http://{server.door.hosts[0]}", "Content-Type": "application/json", **more}


def test_the_page_and_its_files_are_served_and_nothing_may_keep_or_frame_them(server: PageServer) -> None:
    assert {"", "style.css", "app.js", "icon.svg"} <= set(files())
    for name in files():
        status, headers, data = ask(server, "GET", page(server, name))
        assert (status, data) == (200, files()[name][0])
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert not [h for h in headers if h.lower().startswith("access-control") or h.lower() == "set-cookie"]
        assert headers["Server"] == "secure-infer"


def test_the_page_loads_nothing_from_elsewhere() -> None:
    for name, (data, kind) in files().items():
        text = data.decode()
        outside = [line for line in text.splitlines() if "//" in line and "http" in line and "w3.org" not in line]
        assert not outside, name
        if kind.startswith("text/html"):
            assert " style=" not in text
            assert "<script>" not in text
        assert "innerHTML" not in text


def test_head_has_no_body(server: PageServer) -> None:
    status, headers, data = ask(server, "HEAD", page(server))
    assert (status, data) == (200, b"")
    assert int(headers["Content-Length"]) > 0


def test_only_the_token_opens(server: PageServer) -> None:
    token = server.door.token
    for path in (
        "/",
        "//",
        "/x/",
        f"/{token[:-1]}/",
        f"/{token}x/",
        f"/{token}",
        f"/{token.swapcase()}/",
        f"/?token={token}",
    ):
        status, _, data = ask(server, "GET", path)
        assert status == 403, path
        assert token.encode() not in data
    assert ask(server, "POST", "/x/api/state", b"{}", own(server))[0] == 403
    assert len(token) >= 43


def test_tokens_differ_between_servers(server: PageServer) -> None:
    with served() as other:
        assert other.door.token != server.door.token
        assert ask(other, "GET", page(server))[0] == 403


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1",
        "127.0.0.1:1",
        "evil.example:{port}",
        "localhost:{port}.evil.example",
        "0.0.0.0:{port}",
        "",
    ],
)
def test_other_names_of_this_machine_are_refused(server: PageServer, host: str) -> None:
    assert ask(server, "GET", page(server), headers={"Host": host.format(port=server.port)})[0] == 421


def test_localhost_is_this_machine(server: PageServer) -> None:
    host = f"localhost:{server.port}"
    assert ask(server, "GET", page(server), headers={"Host": host})[0] == 200
    assert post(server, "x", {}, Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize(
    "origin", ["null", "http://evil.example", "https://{host}", "http://127.0.0.1", "http://localhost:{port}"]
)
def test_other_origins_may_not_ask(server: PageServer, origin: str) -> None:
    given = origin.format(host=server.door.hosts[0], port=server.port)
    assert ask(server, "POST", page(server, "api/x"), b"{}", own(server, Origin=given))[0] == 403


def test_a_question_without_an_origin_is_refused(server: PageServer) -> None:
    headers = own(server)
    del headers["Origin"]
    assert ask(server, "POST", page(server, "api/x"), b"{}", headers)[0] == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "odd"])
def test_the_browser_says_that_another_page_asks(server: PageServer, site: str) -> None:
    assert ask(server, "POST", page(server, "api/x"), b"{}", own(server, **{"Sec-Fetch-Site": site}))[0] == 403


def test_another_page_may_lead_here_but_not_load(server: PageServer) -> None:
    led = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert ask(server, "GET", page(server), headers=led)[0] == 200
    for change in ({"Sec-Fetch-Dest": "iframe"}, {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}):
        assert ask(server, "GET", page(server, "app.js"), headers={**led, **change})[0] == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "BREW"])
def test_other_methods_are_refused(server: PageServer, method: str) -> None:
    status, headers, data = ask(server, method, page(server))
    assert status == 405
    assert method.encode() not in data
    assert not [h for h in headers if h.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "name",
    ["../door.py", "%2e%2e/door.py", "..", "app.js/", "app.js?x", "/etc/passwd", "APP.JS", "app.js%00", "index.html"],
)
def test_nothing_but_the_files_is_served(server: PageServer, name: str) -> None:
    assert ask(server, "GET", page(server, name))[0] == 404


def test_a_question_is_answered(server: PageServer) -> None:
    assert post(server, "x", {"text": "ä\u2028"}) == (200, {"name": "x", "asked": {"text": "ä\u2028"}})


def test_errors_are_one_sentence_and_hold_nothing_of_the_question(server: PageServer) -> None:
    status, found = post(server, "refuse", {})
    assert (status, found) == (422, {"error": "text: expected one, got none", "reason": "INVALID_INPUT"})
    status, found = post(server, "break", {"text": "canary"})
    assert status == 500
    assert "canary" not in json.dumps(found)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{", b"\xff{}", b'"x"', b"{}{}", b"[" * 100_000, b'{"a":' * 50_000, b"{'a': 1}"],
    ids=["empty", "list", "null", "cut", "not utf-8", "string", "two", "deep", "deep objects", "python"],
)
def test_what_is_no_object_is_refused(server: PageServer, body: bytes) -> None:
    assert ask(server, "POST", page(server, "api/x"), body, own(server))[0] in (400, 413)


def test_sizes(server: PageServer) -> None:
    path, head = page(server, "api/x"), own(server)
    assert ask(server, "POST", path, b'{"a": "' + b"x" * (BODY_BYTES - 9) + b'"}', head)[0] == 200
    assert ask(server, "POST", path, b"", {**head, "Content-Length": str(BODY_BYTES + 1)})[0] == 413
    assert ask(server, "POST", path, b"", {**head, "Content-Length": "9" * 5000})[0] == 413
    for length in ("-1", "+2", "0x2", "2 2", "²", ""):
        assert ask(server, "POST", path, b"", {**head, "Content-Length": length.encode().decode("latin-1")})[0] == 411
    assert ask(server, "POST", path, b"2\r\n{}\r\n0\r\n\r\n", {**head, "Transfer-Encoding": "chunked"})[0] == 411
    assert ask(server, "GET", "/" + "a" * 70_000)[0] == 414
    assert ask(server, "GET", page(server), headers={f"X-{n}": "1" for n in range(200)})[0] == 431


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_elsewhere_could_send_is_refused(server: PageServer, kind: str) -> None:
    assert ask(server, "POST", page(server, "api/x"), b"{}", own(server, **{"Content-Type": kind}))[0] == 415


def test_a_question_is_not_a_file(server: PageServer) -> None:
    assert ask(server, "POST", page(server), b"{}", own(server))[0] == 405
    assert ask(server, "GET", page(server, "api/x"))[0] == 404


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  /  HTTP/1.1\r\n\r\n",
        b"\0" * 64 + b"\r\n\r\n",
    ],
    ids=["tls", "blank", "one word", "version", "no host", "zeros"],
)
def test_what_is_no_request_is_answered_or_dropped(server: PageServer, raw: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        data = b""
        while part := connection.recv(4096):
            data += part
    assert b" 200 " not in data[:40]
    assert post(server, "x", {})[0] == 200


def test_two_hosts_or_origins_are_refused(server: PageServer) -> None:
    for line in (f"Host: {server.door.hosts[0]}", "Host: evil.example"):
        raw = f"GET {page(server)} HTTP/1.1\r\nHost: {server.door.hosts[0]}\r\n{line}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(raw.encode())
            assert b" 421 " in connection.recv(4096)[:40]


def test_idle_connections_do_not_pile_up(server: PageServer) -> None:
    """More than there is room for are closed at once; the page is served again when they are gone."""
    idle = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(CONNECTIONS + 8)]
    closed = 0
    for connection in idle[CONNECTIONS:]:
        try:
            closed += connection.recv(1) == b""
        except ConnectionError:
            closed += 1
    assert closed == 8
    for connection in idle:
        connection.close()
    for _ in range(100):
        try:
            assert ask(server, "GET", page(server))[0] == 200
            return
        except (ConnectionError, OSError):
            continue
    pytest.fail("the page is not served any more")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_only_loopback_is_bound(host: str) -> None:
    with pytest.raises(SettingsError, match="loopback"):
        PageServer(lambda name, asked: {}, host)


def test_a_port_in_use_is_an_error(server: PageServer) -> None:
    with pytest.raises(SettingsError, match="cannot be had"):
        PageServer(lambda name, asked: {}, port=server.port)


def test_nothing_is_logged(server: PageServer, capfd: pytest.CaptureFixture[str]) -> None:
    post(server, "break", {"text": "canary"})
    ask(server, "GET", "/x/")
    ask(server, "BREW", page(server))
    assert capfd.readouterr() == ("", "")
