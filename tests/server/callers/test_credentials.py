"""A server's certificates renewed while it serves, and what its TLS negotiates."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from secure_infer.errors import SettingsError
from secure_infer_server.callers import authority, probe
from secure_infer_server.callers.credentials import server_credentials
from secure_infer_server.callers.renewal import renew
from secure_infer_server.callers.transport import Negotiated, negotiated
from secure_infer_server.commands import certs
from secure_infer_server.mpc.roles import Role


class Answering(grpc.GenericRpcHandler):  # type: ignore[misc]
    """ "/a/tls" is told what was negotiated; "/a/echo" is a stream."""

    def service(self, details: Any) -> Any:
        if details.method == "/a/echo":
            return grpc.stream_stream_rpc_method_handler(lambda requests, _: requests)

        def told(_: bytes, context: Any) -> bytes:
            found = negotiated(context.auth_context())
            return f"{found.version} {found.group}".encode()

        return grpc.unary_unary_rpc_method_handler(told)


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Path]:
    return certs.make(tmp_path / "own", ["localhost", "127.0.0.1"], "ward-7", 20)


@pytest.fixture
def port(own: dict[str, Path]) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(4), handlers=(Answering(),))
    port = server.add_secure_port(
        "127.0.0.1:0", server_credentials(own["server.pem"], own["server.key"], own["ca.pem"])
    )
    server.start()
    yield port
    server.stop(0)


def channel(port: int, own: dict[str, Path], root: bytes | None = None) -> grpc.Channel:
    trusted = own["ca.pem"].read_bytes() if root is None else root
    credentials = grpc.ssl_channel_credentials(trusted, own["client.key"].read_bytes(), own["client.pem"].read_bytes())
    # A channel of its own: gRPC lets channels with the same arguments share a connection.
    return grpc.secure_channel(f"127.0.0.1:{port}", credentials, [("grpc.use_local_subchannel_pool", 1)])


def call(made: grpc.Channel) -> bytes:
    return bytes(made.unary_unary("/a/tls")(b"", timeout=10))


def served_serial(port: int) -> int:
    """Of the certificate that a new connection is shown."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def test_renewed_without_a_restart_and_without_a_dropped_connection(port: int, own: dict[str, Path]) -> None:
    directory = own["ca.pem"].parent
    ca = authority.read_authority(directory)
    ending, answers, failures = threading.Event(), [], []

    def load() -> None:
        """One connection through all of it, and a stream on it that stays open."""
        try:
            with channel(port, own) as made:
                waiting = iter(lambda: None if ending.wait(0.002) else b"x", None)
                for answer in made.stream_stream("/a/echo")(waiting, timeout=60):
                    call(made)
                    answers.append(answer)
        except grpc.RpcError as error:
            failures.append(error)

    loaded = threading.Thread(target=load)
    loaded.start()
    seen = [served_serial(port)]
    for keep_key in (False, True, False):
        renewed = renew(directory, ca, within=None, days=None, keep_key=keep_key)
        assert own["server.pem"] in renewed
        seen.append(served_serial(port))
        with channel(port, own) as made:  # with the renewed client certificate, too
            call(made)
    before = len(answers)
    ending.set()
    loaded.join()
    assert not failures
    assert before > 10
    assert len(set(seen)) == 4


def test_a_wrong_pair_keeps_the_old_one(port: int, own: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    serial = served_serial(port)
    key = own["server.key"].read_bytes()
    for wrong in (b"", authority.key_pem(authority.new_key())):
        own["server.key"].write_bytes(wrong)
        caplog.clear()
        for _ in range(2):
            with channel(port, own) as made:
                call(made)
            assert served_serial(port) == serial
        assert len([record for record in caplog.records if "certificates of this server" in record.message]) == 1
    own["server.key"].write_bytes(key)
    assert served_serial(port) == serial


def test_a_new_client_ca(port: int, own: dict[str, Path], tmp_path: Path) -> None:
    """Both for a while, then the new one alone: as docs/commands.md says it."""
    later = certs.make(tmp_path / "later", ["localhost", "127.0.0.1"], "ward-7", 20)
    old_root, roots = own["ca.pem"].read_bytes(), own["ca.pem"].read_bytes() + later["ca.pem"].read_bytes()

    def taken(client: dict[str, Path]) -> bool:
        with channel(port, client, old_root) as made:
            try:
                return bool(call(made))
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                return False

    assert (taken(own), taken(later)) == (True, False)
    own["ca.pem"].write_bytes(roots)
    assert (taken(own), taken(later)) == (True, True)
    own["ca.pem"].write_bytes(later["ca.pem"].read_bytes())
    assert (taken(own), taken(later)) == (False, True)


def test_wrong_at_the_start(own: dict[str, Path]) -> None:
    with pytest.raises(SettingsError, match="does not belong"):
        server_credentials(own["server.pem"], own["client.key"], None)


def test_of_another_role_at_the_start_and_later(own: dict[str, Path], tmp_path: Path) -> None:
    """As a party's: what is put in its place by mistake would be refused by everybody."""
    files = [tmp_path / "own.pem", tmp_path / "own.key"]

    def put(name: str) -> None:
        for file in files:
            file.write_bytes(own[f"{name}{file.suffix}"].read_bytes())

    put("party1")
    with pytest.raises(SettingsError, match=r"the role party:0, \S+own.pem has party:1"):
        server_credentials(*files, own["ca.pem"], role=Role.PARTY_0)
    put("party0")
    server = grpc.server(ThreadPoolExecutor(4), handlers=(Answering(),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(*files, None, role=Role.PARTY_0))
    server.start()
    serial = served_serial(port)
    put("party1")
    assert served_serial(port) == serial
    put("party0")
    assert served_serial(port) == serial
    server.stop(0)


# What is negotiated. gRPC reads its environment once, so that each case has a process of its own.

SERVE = """
import json, sys
from pathlib import Path
from secure_infer_server.callers import transport
held = transport.hold_to_tls13() if sys.argv[2] == "held" else False
from concurrent.futures import ThreadPoolExecutor
import grpc
from secure_infer_server.callers.credentials import server_credentials
own = Path(sys.argv[1])
server = grpc.server(ThreadPoolExecutor(1))
made = server_credentials(own / "server.pem", own / "server.key", own / "ca.pem")
print(json.dumps([held, server.add_secure_port("127.0.0.1:0", made)]), flush=True)
server.start()
sys.stdin.read()
"""


def serving(own: dict[str, Path], how: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_SSL_CIPHER_SUITES"}
    command = [sys.executable, "-c", SERVE, str(own["ca.pem"].parent), how]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )


@pytest.mark.parametrize("how", ["held", "as built"])
def test_tls12_is_refused(own: dict[str, Path], how: str, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(own, how) as process:
        assert process.stdout is not None
        held, port = json.loads(process.stdout.readline())
        outcomes = {}
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=str(own["ca.pem"]))
            context.load_cert_chain(own["client.pem"], own["client.key"])
            context.set_alpn_protocols(["h2"])
            context.minimum_version = context.maximum_version = version
            outcomes[version.name] = connects(context, port)
        status = certs.run(["probe", f"127.0.0.1:{port}", "--json"])
        found = json.loads(capsys.readouterr().out)
        with channel(port, own) as made, pytest.raises(grpc.RpcError) as caught:
            call(made)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED  # that is, TLS 1.3 and answered
        assert process.stdin is not None
        process.stdin.close()
    assert held == (how == "held")
    assert outcomes == {"TLSv1_2": not held, "TLSv1_3": True}
    assert found["tls12"] == (not held)
    assert status == (0 if held else 1)


def connects(context: ssl.SSLContext, port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
            with context.wrap_socket(link, server_hostname="localhost"):
                return True
    except (ssl.SSLError, ConnectionError):
        return False


HYBRID = "X25519MLKEM768"


def test_key_exchange_of_grpc(port: int, own: dict[str, Path]) -> None:
    """What SECURITY.md says was found: hybrid between two of gRPC's builds of 1.85, P-256 alone in 1.81."""
    groups = probe.groups("127.0.0.1", port)
    version = tuple(int(part) for part in grpc.__version__.split(".")[:2])
    assert "P-256" in groups
    with channel(port, own) as made:
        found = call(made).decode()
    if version >= (1, 85):
        assert groups == ["X25519MLKEM768", "X25519", "P-256", "P-384", "P-521"]
        assert found == f"TLSv1.3 {HYBRID}"
    if version <= (1, 81):
        assert groups == ["P-256"]


def test_key_exchange_of_pythons_ssl(own: dict[str, Path]) -> None:
    """The lanes between parties: hybrid where Python is built on OpenSSL 3.5 or later, and only there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own["server.pem"], own["server.key"])
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for _ in probe.GROUPS:
                link, _ = listening.accept()
                with link:
                    try:
                        context.wrap_socket(link, server_side=True)
                    except (ssl.SSLError, ConnectionError):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        groups = probe.groups("127.0.0.1", listening.getsockname()[1])
        thread.join()
    assert "X25519" in groups
    assert (HYBRID in groups) == (ssl.OPENSSL_VERSION_INFO >= (3, 5))


def test_what_a_build_does_not_say() -> None:
    assert negotiated({"transport_security_type": [b"ssl"]}) == Negotiated("", "")
    assert probe.selected_group(b"") is None
    assert probe.selected_group(b"\x02" + bytes(60)) is None
