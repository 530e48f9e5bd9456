"""`secure-infer serve` as a process: addresses, TLS, health, orderly end, logs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from secure_infer import address
from secure_infer.errors import SecureInferError, ServerUnavailable, SettingsError
from secure_infer.heads import Head
from secure_infer.v1 import models_pb2, models_pb2_grpc
from secure_infer_client import Client
from secure_infer_client.local_server import LocalServer
from secure_infer_server.app import SERVICES
from secure_infer_server.commands import certs
from secure_infer_server.settings import Settings
from shared import linear_head, unit_rows


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "secure_infer.cli", *arguments], capture_output=True, text=True, timeout=60
    )


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("serve", *arguments)


def test_ready_line(server: LocalServer, heads: dict[str, Head]) -> None:
    ready = server.ready
    assert ready["event"] == "ready"
    assert str(ready["address"]).startswith("127.0.0.1:")
    assert ready["models"] == sorted(heads)
    assert list(ready["rejected"]) == ["corrupt"]
    assert sorted(ready["without_plan"]) == ["quintic", "relu"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "127.0.0.1:0"], "--insecure for loopback"),
        (["--listen", "0.0.0.0:0", "--insecure"], "loopback only"),
        (["--listen", "nowhere", "--insecure"], "HOST:PORT"),
        (["--listen", "127.0.0.1:99999", "--insecure"], "HOST:PORT"),
        (["--listen", "127.0.0.1:0", "--tls-cert", "x"], "go together"),
        (["--listen", "127.0.0.1:0", "--tls-cert", "x", "--tls-key", "y"], "cannot be read"),
        (["--listen", "127.0.0.1:0", "--insecure", "--client-ca", "x"], "needs --tls-cert"),
        (["--listen", "127.0.0.1:0", "--insecure", "--privacy", "none"], "both-private"),
        (["--listen", "127.0.0.1:0", "--insecure", "--smudging", "many"], "whole number"),
        (["--listen", "127.0.0.1:0", "--insecure", "--smudging", "99"], "1 to 40"),
        (["--listen", "127.0.0.1:0", "--insecure", "--error", "-1"], "positive"),
        (["--listen", "127.0.0.1:0", "--insecure", "--privacy", "nobody=input-private"], "not a model"),
    ],
)
def test_wrong_use_is_one_line_and_status_two(models_dir: Path, arguments: list[str], message: str) -> None:
    done = serve("--models", str(models_dir), *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout


def test_directories_without_models(tmp_path: Path) -> None:
    assert "not a directory" in serve("--models", str(tmp_path / "x"), "--listen", "127.0.0.1:0", "--insecure").stderr
    assert "no *.head" in serve("--models", str(tmp_path), "--listen", "127.0.0.1:0", "--insecure").stderr
    (tmp_path / "bad.head").write_bytes(b"x")
    assert "no file loads" in serve("--models", str(tmp_path), "--listen", "127.0.0.1:0", "--insecure").stderr


def test_a_port_in_use_is_an_error(server: LocalServer, models_dir: Path) -> None:
    done = serve("--models", str(models_dir), "--listen", server.address, "--insecure")
    assert done.returncode == 2
    assert "port is in use" in done.stderr.splitlines()[-1]


def test_addresses() -> None:
    assert address.parse("[::1]:80", "x") == ("[::1]", 80)
    assert [address.is_loopback(h) for h in ("[::1]", "127.8.9.1", "localhost", "10.0.0.1", "example.org")] == [
        True
    ] * 3 + [False] * 2
    with pytest.raises(SettingsError):
        Settings(Path(), "localhost", 0)


def test_policies_of_single_models(models_dir: Path) -> None:
    options = ["--smudging", "20", "--smudging", "wide=7", "--error", "small=1e-2", "--privacy", "public=input-private"]
    with LocalServer(models_dir, *options) as server:
        found = {}
        for name in ("small", "wide", "public"):
            with Client(server.address, model=name) as client:
                found[name] = client.plan
    assert found["small"].smudging_bits >= 20
    assert 1e-3 < found["small"].error_bound <= 1e-2
    assert found["wide"].smudging_bits >= 7
    assert found["wide"].parameters.degree < 8192
    assert found["public"].privacy == "input-private"


def test_health_of_every_service(server: LocalServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", *SERVICES):
            assert stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status == 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_in_order(tmp_path: Path, how: signal.Signals) -> None:
    linear_head(4, 2).save(tmp_path / "m.head")
    server = LocalServer(tmp_path)
    server.process.send_signal(how)
    assert server.process.wait(timeout=20) == 0
    assert "Traceback" not in server.log()


def test_the_baseline_is_off_by_default(tmp_path: Path) -> None:
    linear_head(4, 2).save(tmp_path / "m.head")
    with LocalServer(tmp_path) as server, Client(server.address, model="m") as client:
        with pytest.raises(SecureInferError, match="baseline is off"):
            client.evaluate_plaintext(unit_rows(1, 4))


def test_an_empty_pool_and_a_lost_blinding_process(tmp_path: Path) -> None:
    head, x = linear_head(4, 2), unit_rows(6, 4)
    head.save(tmp_path / "m.head")
    with (
        LocalServer(tmp_path, "--blinds-per-key", "0", "--batches", "0") as server,
        Client(server.address, model="m") as client,
    ):
        assert np.abs(client.predict(x) - head.evaluate(x)).max() <= client.plan.error_bound
        assert client.last_call.stats.blinds_inline == 6
    with LocalServer(tmp_path, "--batches", "0") as server, Client(server.address, model="m") as client:
        client.predict(x)
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        lost = [child for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]
        subprocess.run(["kill", "-9", *lost], check=True)
        for _ in range(12):
            assert np.abs(client.predict(x) - head.evaluate(x)).max() <= client.plan.error_bound


# TLS.


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("certs")
    return certs.make(directory / "own", ["localhost", "127.0.0.1"], "ward-7", 2) | {
        f"foreign-{name}": path
        for name, path in certs.make(directory / "foreign", ["localhost", "127.0.0.1"], "stranger", 2).items()
    }


@pytest.fixture(scope="module")
def tls_address(models_dir: Path, pki: dict[str, Path]) -> Iterator[str]:
    command = [
        sys.executable,
        "-m",
        "secure_infer.cli",
        "serve",
        "--models",
        str(models_dir),
        "--listen",
        "127.0.0.1:0",
    ]
    command += [
        "--tls-cert",
        str(pki["server.pem"]),
        "--tls-key",
        str(pki["server.key"]),
        "--client-ca",
        str(pki["ca.pem"]),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["tls"] is True
        yield ready["address"]
        process.terminate()


def own(pki: dict[str, Path]) -> dict[str, Path]:
    return {
        "root_certificates": pki["ca.pem"],
        "private_key": pki["client.key"],
        "certificate_chain": pki["client.pem"],
    }


def test_mutual_tls(tls_address: str, pki: dict[str, Path], heads: dict[str, Head]) -> None:
    x = unit_rows(1, 8)
    with Client(tls_address, model="small", **own(pki)) as client:
        assert np.abs(client.predict(x) - heads["small"].evaluate(x)).max() <= client.plan.error_bound


def test_wrong_transport_is_refused(tls_address: str, pki: dict[str, Path]) -> None:
    wrong: list[dict] = [
        {},  # plaintext
        {"root_certificates": pki["ca.pem"]},  # no client certificate
        {"root_certificates": pki["foreign-ca.pem"]} | {k: v for k, v in own(pki).items() if k != "root_certificates"},
        own(pki) | {"private_key": pki["foreign-client.key"], "certificate_chain": pki["foreign-client.pem"]},
    ]
    for arguments in wrong:
        with Client(tls_address, model="small", timeout=5, **arguments) as client, pytest.raises(ServerUnavailable):
            client.predict(unit_rows(1, 8))


def test_keys_that_do_not_belong_are_named(models_dir: Path, pki: dict[str, Path], tmp_path: Path) -> None:
    base = ("--models", str(models_dir), "--listen", "127.0.0.1:0")
    mixed = serve(*base, "--tls-cert", str(pki["server.pem"]), "--tls-key", str(pki["client.key"]))
    assert "--tls-key" in mixed.stderr
    assert "does not belong" in mixed.stderr
    assert len(mixed.stderr.strip().splitlines()) == 1
    (tmp_path / "text.pem").write_text("hello")
    for arguments, message in (
        ({"root_certificates": tmp_path / "text.pem"}, "no certificate in PEM"),
        (own(pki) | {"private_key": pki["foreign-client.key"]}, "does not belong"),
        (own(pki) | {"private_key": tmp_path / "text.pem"}, "not an unencrypted private key"),
    ):
        with pytest.raises(SettingsError, match=message):
            Client("127.0.0.1:1", model="m", **arguments)
    data = {name: Path(path).read_bytes() for name, path in own(pki).items()}
    Client("127.0.0.1:1", model="m", **data).close()  # bytes do as well


def test_private_keys_are_their_owners_alone(pki: dict[str, Path]) -> None:
    assert pki["server.key"].stat().st_mode & 0o077 == 0
    with pytest.raises(SettingsError, match="nothing was overwritten"):
        certs.make(pki["ca.key"].parent, ["localhost"], "x", 1)


def test_the_registry_lists_no_weights(server: LocalServer, heads: dict[str, Head]) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = models_pb2_grpc.ModelServiceStub(channel)
        raw = stub.GetModel(models_pb2.GetModelRequest(model="wide"), timeout=5).SerializeToString()
    # A table of unit costs, a spec, a few plans; one row of the weights alone is 3 kB.
    assert len(raw) < 6000
    linear = heads["wide"].as_linear()
    assert linear is not None
    assert not any(row.astype(kind).tobytes()[:32] in raw for row in linear.weight for kind in ("<f8", "<f4"))
