"""`secure-infer doctor`: what it finds, and that what it advises is what is wrong."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from secure_infer.errors import SettingsError
from secure_infer_client.commands import doctor
from secure_infer_client.doctor import connection, installation, machine
from secure_infer_client.doctor.connection import Way
from secure_infer_client.doctor.finding import Finding, State, ok, problem, tried
from secure_infer_server.callers.authority import Authority, certificate_pem, key_pem, new_authority, new_key

Make = Callable[..., Way]


class Peer:
    """A TLS server that says nothing."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None, tls12: bool = False) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        if tls12:
            self._context.maximum_version = ssl.TLSVersion.TLSv1_2
        if client_ca is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(client_ca)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._socket.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(link, server_side=True) as secure:
                    secure.settimeout(2)
                    secure.recv(1)
            except OSError:
                pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return new_authority("a CA", 30)


@pytest.fixture
def pair(authority: Authority, tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """pair(name, hosts, days) -> certificate and key files."""

    def made(kind: str = "server", hosts: tuple[str, ...] = ("127.0.0.1",), days: int = 20) -> tuple[Path, Path]:
        key = new_key()
        files = tmp_path / f"{kind}.pem", tmp_path / f"{kind}.key"
        files[0].write_bytes(certificate_pem(authority.sign(kind, kind, hosts, key.public_key(), days)))
        files[1].write_bytes(key_pem(key))
        return files

    return made


@pytest.fixture
def ca(authority: Authority, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(certificate_pem(authority.certificate))
    return path


@pytest.fixture
def peers() -> Iterator[Callable[..., str]]:
    running: list[Peer] = []

    def start(*arguments: Path, **options: object) -> str:
        running.append(Peer(*arguments, **options))  # type: ignore[arg-type]
        return f"127.0.0.1:{running[-1].port}"

    yield start
    for peer in running:
        peer.close()


def seen(way: Way) -> dict[str, Finding]:
    return {finding.look: finding for finding in connection.looks(way, None, query=False)}


# This machine.


def test_this_machine_is_well() -> None:
    found = {finding.look: finding for finding in [*installation.looks(), *machine.looks(calibrate=False)]}
    for look in ("python", "packages", "encryption", "embedder", "clock", "calibration"):
        assert found[look].state is not State.PROBLEM, found[look]
    assert found["encryption"].state is State.OK


def test_a_missing_and_an_old_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        installation.metadata, "requires", lambda _: ["numpy>=999", "absent-package>=1", "x; extra == 'y'"]
    )
    found = installation._packages()
    assert found.state is State.PROBLEM
    assert "absent-package is missing" in found.found
    assert "expected 999 or newer" in found.found


def test_a_clock_before_the_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    future = tmp_path / "__init__.py"
    future.touch()
    os.utime(future, (time.time() + 1e6,) * 2)
    monkeypatch.setattr(machine.secure_infer, "__file__", str(future))
    assert machine._clock().state is State.PROBLEM


def test_a_look_that_fails_is_a_problem() -> None:
    def breaks() -> Finding:
        raise RuntimeError("secret")

    assert tried("x", "mend it", breaks) == problem("x", "RuntimeError", "mend it")
    assert "-> mend it" in tried("x", "mend it", breaks).line()
    assert "->" not in ok("x", "fine").line()


# The way to a server.


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert seen(Way((f"127.0.0.1:{port}",)))["port"].state is State.PROBLEM
    assert seen(Way(("no-such-host.invalid:1",)))["name"].state is State.PROBLEM
    assert seen(Way(("https://x:1",)))["address"].state is State.PROBLEM


def test_a_sound_way(pair: Callable, ca: Path, peers: Callable) -> None:
    found = seen(Way((peers(*pair()),), ca))
    assert found["tls"].found.startswith("TLSv1.3")
    assert found["certificate"].state is State.NOTE  # 20 days are left
    assert "127.0.0.1, until" in found["certificate"].found


def test_certificates_that_do_not_verify(pair: Callable, ca: Path, peers: Callable, tmp_path: Path) -> None:
    address = peers(*pair(hosts=("other.example",)))
    found = seen(Way((address,), ca))["tls"]
    assert (found.state, found.advice) == (State.PROBLEM, "it is for other.example: use that name")
    other = tmp_path / "other.pem"
    other.write_bytes(certificate_pem(new_authority("another CA", 30).certificate))
    assert "a CA" in seen(Way((address,), other))["tls"].advice


def test_a_client_certificate_is_asked_for(pair: Callable, ca: Path, peers: Callable) -> None:
    server = pair()
    address = peers(*server, client_ca=ca)
    assert "one of your own" in seen(Way((address,), ca))["tls"].advice
    certificate, key = pair("client")
    found = seen(Way((address,), ca, key, certificate))
    assert found["tls"].state is State.OK
    assert found["own"].state is State.NOTE


def test_old_tls_and_none(pair: Callable, ca: Path, peers: Callable) -> None:
    assert "TLS 1.3 is needed" in seen(Way((peers(*pair(), tls12=True),), ca))["tls"].advice
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            link, _ = plain.accept()
            link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            link.close()

        thread = threading.Thread(target=lambda: [answer() for _ in range(2)], daemon=True)
        thread.start()
        found = seen(Way((f"127.0.0.1:{plain.getsockname()[1]}",), ca))["tls"]
        thread.join(5)
    assert found.state is State.PROBLEM
    assert "no TLS is spoken there" in found.advice


def test_files_that_are_none(tmp_path: Path, pair: Callable, ca: Path, peers: Callable) -> None:
    (tmp_path / "empty.pem").write_bytes(b"")
    address = peers(*pair())
    assert seen(Way((address,), tmp_path / "empty.pem"))["tls"].state is State.PROBLEM
    assert seen(Way((address,), ca, certificate_chain=tmp_path / "missing.pem"))["own"].state is State.PROBLEM


def jwt(**claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'ES256'})}.{part(claims)}.sig"


def test_tokens() -> None:
    assert connection._token(jwt(exp=time.time() + 7200)).state is State.OK
    ended = connection._token(jwt(exp=time.time() - 600, sub="dr-secret"))
    assert (ended.state, ended.found) == (State.PROBLEM, "it ended 10 min ago")
    assert connection._token(jwt()).state is State.NOTE
    assert connection._token("opaque-secret").state is State.NOTE


# The command.


def test_the_command_asks_and_says_so(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run(["--target", address, "--model", "small", "--query", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    found = {finding["look"]: finding for finding in report["findings"]}
    assert report["ok"]
    assert found["model"]["found"].startswith("small, 8 -> 3")
    assert "ms the first" in found["query"]["found"]
    assert doctor.run(["--target", address, "--model", "absent"]) == 1
    shown = capsys.readouterr().out
    assert "FAIL  model" in shown
    assert shown.endswith("1 problem\n")


@pytest.mark.parametrize("arguments", [["--model", "m"], ["--query"], ["--query", "--target", "a:1"]])
def test_options_that_lack_others(arguments: list[str]) -> None:
    with pytest.raises(SettingsError, match="give --target"):
        doctor.run(arguments)
