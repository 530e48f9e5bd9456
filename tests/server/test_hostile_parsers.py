"""Bytes that once got past a parser's own errors: each is now refused by the catalogue, whoever sends it."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from grpc_status import rpc_status

from secure_infer import pem
from secure_infer.errors import MalformedRequest, SettingsError, Unauthenticated
from secure_infer.mpc.correlations import Recipe
from secure_infer.wire import status as wire_status
from secure_infer_client.local_server import LocalServer
from secure_infer_server.callers.tokens import Tokens
from secure_infer_server.listener import Listener
from secure_infer_server.mpc.dealing import SERVICE, DealerProcess
from secure_infer_server.mpc.endpoint import Listening
from secure_infer_server.observe.endpoint import MetricsServer
from secure_infer_server.process import bound
from secure_infer_server.workers.frames import Connection

NO_MESSAGE = b"\x0a\xff\xff"


@pytest.mark.parametrize("text", [b"7", b'"parts"', b"[" * 5000, b'{"a":' * 5000, b'{"parts":[{}]}', b'{"parts":7}'])
def test_a_workers_frame_without_a_header_ends_the_worker_and_nothing_else(text: bytes) -> None:
    connection = Connection(lambda header, parts: pytest.fail("a frame"), lambda: None)
    data = struct.pack("<IQ", len(text), 0) + text
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))


@pytest.mark.parametrize("kind", [[], {}, None, 7, ["square"]])
def test_a_recipe_of_no_kind_is_refused(kind: object) -> None:
    entry = {"program": "ab" * 32, "rows": 1, "needs": [{"kind": kind, "size": 4}]}
    with pytest.raises(MalformedRequest, match="expected one of"):
        Recipe.from_json(json.dumps(entry).encode())


def test_a_certificate_of_an_unknown_kind_of_key_is_a_settings_error() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    )
    signed = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(1)).sign(key, hashes.SHA256())
    known, unknown = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d027f")  # of EC keys, and of none
    der = signed.public_bytes(Encoding.DER).replace(known, unknown)
    chain = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(SettingsError, match="not known"):
        pem.key_pair("--tls-key", private, "--tls-cert", chain)


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("deep", [b"[" * 5000, b'{"a":' * 1000])
def test_a_token_nested_without_end_is_refused(at: int, deep: bytes) -> None:
    parts = ["e30", "e30", "AA"]
    parts[at] = base64.urlsafe_b64encode(deep).rstrip(b"=").decode()
    with pytest.raises(Unauthenticated):
        Tokens([]).identity(".".join(parts))


def test_the_metrics_port_does_not_say_a_request_again() -> None:
    with MetricsServer("127.0.0.1:0") as server:
        host, port = server.address.split(":")
        for request in (
            *(b"canary\r\n\r\n", b"GET / canary\r\n\r\n", b"GET /" + b"canary" * 20_000 + b"\r\n\r\n"),
            *(b"canary " + path + b" HTTP/1.1\r\n\r\n" for path in (b"/metrics?name[]=x", b"/live", b"/")),
        ):
            with socket.create_connection((host, int(port)), timeout=10) as asking:
                asking.sendall(request)
                asking.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda: asking.recv(1 << 16), b""))
            assert answer
            assert b"canary" not in answer


# Messages that are none, to servicers of generated code.


@pytest.fixture(scope="module")
def dealer() -> Iterator[str]:
    process = DealerProcess(Listening("127.0.0.1", 0, None))
    yield process.start()
    process.stop()


def refusal(address: str, path: str, *, streams: bool) -> str:
    """The reason that a message which is none is refused for."""
    with grpc.insecure_channel(address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            if streams:
                list(channel.stream_stream(path)(iter([NO_MESSAGE]), timeout=10))
            else:
                channel.unary_unary(path)(NO_MESSAGE, timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(caught.value)
    assert status is not None
    found = wire_status.from_status(status)
    assert found is not None
    return found.reason


@pytest.mark.parametrize("path", ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"])
def test_health_refuses_by_the_catalogue(server: LocalServer, dealer: str, path: str) -> None:
    for address in (server.address, dealer):
        assert refusal(address, path, streams=path.endswith("Watch")) == "MALFORMED_REQUEST"


def test_a_dealer_refuses_by_the_catalogue(dealer: str) -> None:
    assert refusal(dealer, f"/{SERVICE}/Deal", streams=True) == "MALFORMED_REQUEST"


# What ends gRPC's own server.


def named(address: str, method: bytes) -> None:
    """Call a method of that name over a connection of one's own: gRPC's clients send UTF-8 alone."""
    host, port = address.split(":")
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": method,
        b":authority": b"x",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    block = b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields.items())
    begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
    headers = struct.pack(">I", len(block))[1:] + b"\x01\x05" + struct.pack(">I", 1) + block
    with socket.create_connection((host, int(port)), timeout=10) as calling:
        calling.sendall(begin + headers)
        calling.shutdown(socket.SHUT_WR)
        while calling.recv(1 << 16):
            pass


@pytest.mark.parametrize("method", [b"/\xff\xfe", b"\x80", b"/secure_infer.v1.ModelService/\xc3\x28"])
def test_a_method_that_is_no_text_ends_no_server(server: LocalServer, dealer: str, method: bytes) -> None:
    for address in (server.address, dealer):
        for _ in range(3):
            named(address, method)
        with grpc.insecure_channel(address) as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            assert check(b"", timeout=10, wait_for_ready=True) == b"\x08\x01"


def test_no_call_notices_a_method_that_is_no_text(server: LocalServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        for _ in range(20):
            calls = [check.future(b"", timeout=10) for _ in range(20)]
            named(server.address, b"/\xff")
            assert {call.result() for call in calls} == {b"\x08\x01"}
    assert "another takes its place" not in server.log()


def test_an_unknown_method_is_unimplemented(server: LocalServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        for method in ("/", "/secure_infer.v1.ModelService/Nothing", "/other.Service/ListModels"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(method)(b"", timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# Where it ends all the same, as grpcio's own does.


def test_another_takes_the_place_of_a_server_that_ended() -> None:
    async def run() -> None:
        made: list[grpc.aio.Server] = []

        def make(again: str | None) -> tuple[grpc.aio.Server, str]:
            server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler("x.S", {"Wait": waits, "Say": says}),)
            )
            made.append(server)
            port = 0 if again is None else int(again.rpartition(":")[2])
            return server, bound(server, "127.0.0.1", port, None)

        async def wait(request: bytes, context: object) -> bytes:
            await asyncio.sleep(1)
            return request

        async def say(request: bytes, context: object) -> bytes:
            return request

        waits, says = grpc.unary_unary_rpc_method_handler(wait), grpc.unary_unary_rpc_method_handler(say)
        listener = Listener(make, 5.0)
        address = await listener.start()
        async with grpc.aio.insecure_channel(address) as channel:
            under_way = channel.unary_unary("/x.S/Wait")(b"1", timeout=10)
            await asyncio.sleep(0.2)
            await asyncio.to_thread(named, address, b"/\xff")
            async with grpc.aio.insecure_channel(address) as other:
                for _ in range(20):  # calls that come while none serves are lost
                    with suppress(grpc.aio.AioRpcError):
                        assert await other.unary_unary("/x.S/Say")(b"2", timeout=10, wait_for_ready=True) == b"2"
                        break
                    await asyncio.sleep(0.1)
                else:
                    pytest.fail("nobody serves the port")
            assert await under_way == b"1"
        assert len(made) == 2
        await (await listener.release()).stop(1)

    asyncio.run(run())
