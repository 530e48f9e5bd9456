"""Behind a company's HTTP proxy and with its CA: a real proxy process, a real TLS server that only the proxy can find."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import pytest

from secure_infer.errors import ServerUnavailable, SettingsError
from secure_infer_client import Client, transport
from secure_infer_server.commands import certs
from shared import linear_head, unit_rows

HOST = "infer.example"
TARGET = f"{HOST}:8443"
X = unit_rows(1, 8)


class Proxy:
    """`log` is what was asked of it so far, once it has ended."""

    def __init__(self, login: str, address: str) -> None:
        command = [sys.executable, Path(__file__).with_name("connect_proxy.py"), login, f"{HOST}={address}"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = f"127.0.0.1:{self._process.stdout.readline().strip()}"
        self.log: list[str] = []

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self.log = self._process.communicate()[0].split("\n")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certs")
    certs.make(path, [HOST], "alice", 2)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, pki: Path) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("models")
    linear_head(8, 3).save(directory / "m.head")
    # Without a client CA: as most who stand behind a proxy meet it.
    from secure_infer_server.app import App
    from secure_infer_server.settings import Settings, Tls

    app = App(Settings(directory, "127.0.0.1", 0, tls=Tls(pki / "server.pem", pki / "server.key")))
    yield app.start()
    app.stop()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_through_a_proxy_that_is_given(server: str, pki: Path) -> None:
    with Proxy("-", server) as proxy:
        with Client(TARGET, model="m", root_certificates=pki / "ca.pem", proxy=f"http://{proxy.address}") as client:
            assert np.isfinite(client.predict(X)).all()
    assert f"200 {TARGET}" in proxy.log


def test_through_the_environments_proxy(server: str, pki: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy("-", server) as proxy:
        monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
        with Client(TARGET, model="m", root_certificates=pki / "ca.pem") as client:
            client.predict(X)
        monkeypatch.setenv("no_proxy", HOST)
        with (
            Client(TARGET, model="m", root_certificates=pki / "ca.pem", timeout=5) as client,
            pytest.raises(ServerUnavailable),
        ):
            client.predict(X)  # nobody else knows where the name leads
    assert proxy.log.count(f"200 {TARGET}") == 1


def test_a_proxy_that_asks_who_is_there(server: str, pki: Path) -> None:
    with Proxy("ward:secret7", server) as proxy:
        arguments = {"model": "m", "root_certificates": pki / "ca.pem", "timeout": 5}
        with Client(TARGET, proxy=f"http://ward:secret7@{proxy.address}", **arguments) as client:
            client.predict(X)
        with (
            Client(TARGET, proxy=f"http://ward:wrong@{proxy.address}", **arguments) as client,
            pytest.raises(ServerUnavailable) as refused,
        ):
            client.predict(X)
        assert "wrong" not in refused.value.message
    assert {line[:3] for line in proxy.log if line} == {"200", "407"}


def test_loopback_and_an_empty_proxy_go_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    without = [("grpc.enable_http_proxy", 0)]
    assert transport.proxy_options(None, local=True) == without
    assert transport.proxy_options("", local=False) == without
    assert transport.proxy_options(None, local=False) == []


@pytest.mark.parametrize(
    "proxy", ["proxy.example:3128", "https://proxy.example:3128", "socks5://p:1080", "http://", "http://p:1/path"]
)
def test_other_kinds_of_proxies_are_refused(proxy: str) -> None:
    with pytest.raises(SettingsError, match="other kinds of proxies are not supported"):
        Client(TARGET, model="m", proxy=proxy)


def test_a_bundle_of_authorities(server: str, pki: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    certs.make(other, [HOST], "bob", 2)
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes((other / "ca.pem").read_bytes() + (pki / "ca.pem").read_bytes())
    with Proxy("-", server) as proxy:
        arguments = {"model": "m", "proxy": f"http://{proxy.address}", "timeout": 5}
        with Client(TARGET, root_certificates=bundle, **arguments) as client:
            client.predict(X)
        with Client(TARGET, root_certificates=bundle.read_bytes(), **arguments) as client:
            client.predict(X)
        with (
            Client(TARGET, root_certificates=other / "ca.pem", **arguments) as client,
            pytest.raises(ServerUnavailable),
        ):
            client.predict(X)
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
        with Client(TARGET, **arguments) as client:
            client.predict(X)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="root_certificates"):
        Client(TARGET, model="m")
