"""The SDK against a real server process."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from secure_infer.errors import (
    EmbedderMismatch,
    InvalidInput,
    ModelChanged,
    PrivacyRefused,
    ResourceExhausted,
    ServerUnavailable,
    SettingsError,
    UnknownModel,
    UnsupportedHead,
)
from secure_infer.heads import Head
from secure_infer_client import AsyncClient, Client, transport
from secure_infer_client.local_server import LocalServer
from secure_infer_client.text import embedder
from shared import linear_head, unit_rows


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, model="small") as made:
        yield made


def test_stats_of_a_call(client: Client) -> None:
    client.predict(unit_rows(1, 8))
    first = client.last_call.stats
    client.predict(unit_rows(2, 8))
    second = client.last_call.stats
    assert (first.key_bytes, second.key_bytes) == (client.plan.key_bytes, 0)
    assert (first.records, second.records, second.rounds) == (1, 2, 1)
    assert second.bytes_up > 2 * client.plan.query_bytes
    assert second.bytes_down > 2 * client.plan.answer_bytes
    assert (second.security_bits, second.smudging_bits) == (128, client.plan.smudging_bits)
    parts = second.embed_ms + second.encrypt_ms + second.network_ms + second.server_ms + second.decrypt_ms
    assert 0 < parts <= second.total_ms
    assert second.blinds_ready + second.blinds_inline == 2 * client.plan.products
    assert client.last_call.model_digest == client.spec.digest


def test_last_call_before_any(client: Client) -> None:
    with pytest.raises(InvalidInput, match="nothing was predicted"):
        client.last_call  # noqa: B018


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(8), "rank 1"),
        (np.zeros((1, 9)), "expected 8 features"),
        (np.zeros((0, 8)), "empty"),
        (np.full((1, 8), np.nan), "NaN"),
        (np.array([["a"] * 8]), "dtype"),
        (np.full((1, 8), 2.0), "bound"),
        (np.full((1, 8), 0.9), "L2 norm"),
    ],
)
def test_bad_input_never_leaves(client: Client, heads: dict[str, Head], x: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        client.predict(x)
    good = unit_rows(1, 8)
    assert np.abs(client.predict(good) - heads["small"].evaluate(good)).max() <= client.plan.error_bound


def test_unknown_model(address: str) -> None:
    with Client(address, model="nobody") as client, pytest.raises(UnknownModel, match="served: binary"):
        client.predict(unit_rows(1, 8))


def test_a_corrupt_artifact_says_so(address: str) -> None:
    with Client(address, model="corrupt") as client, pytest.raises(UnknownModel, match="not served"):
        client.predict(unit_rows(1, 8))


@pytest.mark.parametrize(("name", "message"), [("quintic", "degree 5"), ("relu", "no polynomial")])
def test_heads_without_a_plan_are_a_named_error(address: str, heads: dict[str, Head], name: str, message: str) -> None:
    x = unit_rows(2, 8)
    with Client(address, model=name) as client:
        with pytest.raises(UnsupportedHead, match=message):
            client.predict(x)
        assert np.allclose(client.evaluate_plaintext(x), heads[name].evaluate(x))


def test_privacy_may_be_raised_and_not_lowered(address: str) -> None:
    with Client(address, model="public") as client:
        assert client.plan.privacy == "input-private"
    with Client(address, model="public", privacy="both-private") as client:
        assert client.plan.privacy == "both-private"
    with (
        Client(address, model="small", privacy="input-private") as client,
        pytest.raises(PrivacyRefused, match="operator"),
    ):
        client.predict(unit_rows(1, 8))
    with pytest.raises(SettingsError, match="expected one of"):
        Client(address, model="small", privacy="none")


def test_nobody_listens() -> None:
    with (
        Client("127.0.0.1:1", model="small", timeout=5) as client,
        pytest.raises(ServerUnavailable, match=r"no server answers.*refused.*is it running\?$"),
    ):
        client.predict(unit_rows(1, 8))


class Unavailable(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "Socket closed"

    def trailing_metadata(self) -> None:
        return None


@pytest.mark.parametrize(
    ("target", "root", "key", "advice"),
    [
        ("127.0.0.1:1", None, None, "TLS was not used here; if the server demands it give --root-certificates"),
        ("127.0.0.1:1", b"ca", None, "TLS was used here.*If it asks for a client certificate give --private-key"),
        ("far.example:1", None, None, "TLS was used here.*If it asks for a client certificate give --private-key"),
        ("127.0.0.1:1", b"ca", b"key", "TLS was used here.*this client's from one that the server accepts"),
    ],
)
def test_a_closed_connection_tells_what_was_given(target: str, root: bytes, key: bytes, advice: str) -> None:
    (known,) = transport.targets([target], root, key, party=False)
    found = transport.translate(known, 5.0, Unavailable())
    assert isinstance(found, ServerUnavailable)
    assert re.search(advice, found.message)


@pytest.mark.parametrize(
    "arguments",
    [
        {"target": "nowhere"},
        {"target": "http://127.0.0.1:1"},
        {"target": ("a:1", "b:2")},
        {"scheme": "mpc"},
        {"timeout": 0},
        {"link": "fast"},
        {"link": "0mbit,1ms"},
        {"token": "secret"},
        {"private_key": "/nonexistent"},
        {"root_certificates": "/nonexistent"},
    ],
)
def test_settings_are_checked_at_once(arguments: dict) -> None:
    with pytest.raises(SettingsError):
        Client(**({"target": "127.0.0.1:1", "model": "m"} | arguments))


def test_an_evicted_key_is_uploaded_again(models_dir: Path) -> None:
    """A server that keeps keys in memory forgets them with its end; the client notices nothing but the bytes."""
    with pytest.raises(ServerUnavailable, match="capacity has to be positive"):
        LocalServer(models_dir, "--key-memory", "0")
    with LocalServer(models_dir) as server, Client(server.address, model="small") as client:
        client.predict(unit_rows(1, 8))
        again = client._session  # the server restarts on the same port: it has forgotten every key
        port = server.address.rpartition(":")[2]
        server.stop()
        with LocalServer(models_dir, "--listen", f"127.0.0.1:{port}"):
            client.predict(unit_rows(1, 8))
            assert client.last_call.stats.key_bytes == client.plan.key_bytes
            assert again is client._session


def test_a_changed_model_is_refused_unless_accepted(tmp_path: Path) -> None:
    x = unit_rows(1, 8)
    first, second = linear_head(8, 3, seed=1), linear_head(8, 3, seed=2)
    first.save(tmp_path / "m.head")
    asked: list[str] = []

    def accept(spec: object) -> bool:
        asked.append(spec.digest)  # type: ignore[attr-defined]
        return True

    with LocalServer(tmp_path) as server:
        port = server.address.rpartition(":")[2]
        strict, open_minded = Client(server.address, model="m"), Client(server.address, model="m", accept_model=accept)
        for client in (strict, open_minded):
            client.predict(x)
        assert not asked
    second.save(tmp_path / "m.head")
    with LocalServer(tmp_path, "--listen", f"127.0.0.1:{port}"):
        with pytest.raises(ModelChanged, match="pinned"):
            strict.predict(x)
        assert np.abs(open_minded.predict(x) - second.evaluate(x)).max() <= open_minded.plan.error_bound
        assert asked == [second.digest]
        with pytest.raises(ModelChanged):  # it stays pinned
            strict.predict(x)
    strict.close()
    open_minded.close()


def test_a_closed_client_says_so(address: str) -> None:
    client = Client(address, model="small")
    client.predict(unit_rows(1, 8))
    client.close()
    client.close()
    with pytest.raises(SettingsError, match="closed"):
        client.predict(unit_rows(1, 8))


def test_a_server_that_comes_back_is_found_again(tmp_path: Path) -> None:
    head, x = linear_head(8, 3), unit_rows(1, 8)
    head.save(tmp_path / "m.head")
    with LocalServer(tmp_path) as server, Client(server.address, model="m") as client:
        client.predict(x)
        server.stop()
        with pytest.raises(ServerUnavailable):
            client.predict(x)
        with LocalServer(tmp_path, "--listen", server.address):
            time.sleep(1.2)
            assert np.abs(client.predict(x) - head.evaluate(x)).max() <= client.plan.error_bound


def test_threads_take_turns(client: Client, heads: dict[str, Head]) -> None:
    x = unit_rows(24, 8)
    with ThreadPoolExecutor(6) as pool:
        found = np.concatenate(list(pool.map(lambda row: client.predict(row[None]), x)))
    assert np.abs(found - heads["small"].evaluate(x)).max() <= client.plan.error_bound


def test_concurrent_clients_do_not_mix(address: str, heads: dict[str, Head]) -> None:
    failures: list[str] = []

    def work(seed: int) -> None:
        x = unit_rows(12, 8, seed)
        with Client(address, model="small") as own:
            if np.abs(own.predict(x) - heads["small"].evaluate(x)).max() > own.plan.error_bound:
                failures.append(f"seed {seed}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_forked_client_is_a_clear_error(client: Client) -> None:
    client.predict(unit_rows(1, 8))
    child = os.fork()
    if child == 0:
        try:
            client.predict(unit_rows(1, 8))
        except SettingsError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_async_client_has_the_same_surface(address: str, heads: dict[str, Head]) -> None:
    public = {name for name, _ in inspect.getmembers(Client) if not name.startswith("_")}
    own = {name for name, _ in inspect.getmembers(AsyncClient) if not name.startswith("_")}
    assert public - own == set()
    x = unit_rows(4, 8)

    async def use() -> np.ndarray:
        async with AsyncClient(address, model="small") as client:
            halves = await asyncio.gather(client.predict(x[:2]), client.predict(x[2:]))
            assert client.last_call.stats.records == 2
            assert (await client.spec()).name == "small"
            return np.concatenate(halves)

    assert np.abs(asyncio.run(use()) - heads["small"].evaluate(x)).max() < 1e-3


@pytest.fixture(scope="module")
def text_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A model trained on a toy embedder: two features, words and letters."""
    directory = tmp_path_factory.mktemp("text")
    base = linear_head(2, 2, scale=1.0, bound=100.0, norm=None)
    Head(base.layers, labels=base.labels, input_bound=100.0, embedder="toy/1").save(directory / "toy.head")
    Head(base.layers, labels=base.labels, input_bound=100.0).save(directory / "plain.head")
    with LocalServer(directory) as running:
        yield running


def toy(texts: list[str]) -> np.ndarray:
    return np.array([[len(t.split()), len(t) / 10] for t in texts], np.float64)


def test_classify_with_an_own_embedder(text_server: LocalServer) -> None:
    with Client(text_server.address, model="toy", embedder=embedder("toy/1", toy)) as client:
        found = client.classify(["one two three", "seen on 12/03/2021 by phone 555-123-4567"])
        assert [len(f.removed) > 0 for f in found] == [False, True]
        assert all(f.label in client.spec.labels and 0 <= f.probability <= 1 and not f.truncated for f in found)
        assert all(f.certain == (f.margin > 2 * f.error_bound) for f in found)
        assert "12/03/2021" not in repr(client.embed(["seen on 12/03/2021"]))
        explained = client.explain("one two three")
        assert explained.words == ("one", "two", "three")
        assert explained.attributions.shape == (3,)
        assert client.last_call.stats.records == 16  # padded
        with pytest.raises(InvalidInput, match="list of strings"):
            client.classify("one")  # type: ignore[arg-type]
        with pytest.raises(InvalidInput):
            client.classify([])


def test_a_foreign_embedder_is_refused(text_server: LocalServer) -> None:
    cases = [("toy", embedder("other/1", toy)), ("toy", toy), ("toy", None), ("plain", embedder("toy/1", toy))]
    for model, given in cases:
        with Client(text_server.address, model=model, embedder=given) as client, pytest.raises(EmbedderMismatch):  # type: ignore[arg-type]
            client.classify(["text"])


def test_many_new_clients_at_once(address: str, heads: dict[str, Head]) -> None:
    x = unit_rows(3, 384)
    exact = heads["wide"].evaluate(x)

    def use(_: int) -> float:
        with Client(address, model="wide", timeout=60) as client:
            return max(
                float(np.abs(client.predict(row[None]) - row_exact).max())
                for row, row_exact in zip(x, exact, strict=True)
            )

    with ThreadPoolExecutor(10) as pool:
        assert max(pool.map(use, range(10), timeout=120)) < 1e-3


class Busy:
    """A key service whose places are taken at first."""

    def __init__(self, keys: Any, refusals: list[ResourceExhausted]) -> None:
        self._keys, self._refusals = keys, refusals

    def UploadKeys(self, *arguments: Any, **named: Any) -> Any:  # noqa: N802
        if self._refusals:
            raise self._refusals.pop()
        return self._keys.UploadKeys(*arguments, **named)


def test_a_busy_server_is_asked_again_and_a_full_one_is_not(client: Client) -> None:
    session = client._session
    session._keys = Busy(session._keys, [ResourceExhausted("busy", again="shortly") for _ in range(3)])  # type: ignore[assignment]
    client.predict(unit_rows(1, 8))
    assert client.last_call.stats.key_bytes == client.plan.key_bytes
    session._secrets.destroy()
    full = [ResourceExhausted("full")]
    session._keys = Busy(session._keys, full)  # type: ignore[assignment]
    with pytest.raises(ResourceExhausted, match="full"):
        client.predict(unit_rows(1, 8))
    assert not full


def test_a_batch_on_a_head_of_many_products(tmp_path: Path) -> None:
    head = linear_head(3000, 60, bound=6.0, norm=None, scale=20.0)
    head.save(tmp_path / "big.head")
    x = np.random.default_rng(0).uniform(-6, 6, (4, 3000))
    with LocalServer(tmp_path) as server, Client(server.address, model="big", timeout=60) as client:
        for _ in range(2):
            assert np.abs(client.predict(x) - head.evaluate(x)).max() <= client.plan.error_bound


def test_a_regression_has_no_surest_window(tmp_path: Path) -> None:
    base = linear_head(2, 1, bound=100.0, norm=None)
    Head(base.layers, labels=["dose"], input_bound=100.0, task="regression", embedder="toy/1").save(tmp_path / "m.head")
    with LocalServer(tmp_path) as server:
        arguments = {"model": "m", "embedder": embedder("toy/1", toy)}
        with Client(server.address, **arguments) as client:
            (found,) = client.classify(["one two"])
            assert found.label.startswith("dose ")
            assert np.isnan(found.probability)
        with (
            Client(server.address, long_text="apart", **arguments) as client,
            pytest.raises(SettingsError, match="surest"),
        ):
            client.classify(["one two"])


def test_a_fork_while_a_call_is_under_way_does_not_hang(client: Client) -> None:
    with client._calls._turns._changed:
        child = os.fork()
        if child == 0:
            try:
                client.predict(unit_rows(1, 8))
            except SettingsError:
                os._exit(0)
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_model_that_changes_within_a_call_answers_none_of_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, x = linear_head(8, 3, seed=1), linear_head(8, 3, seed=2), unit_rows(130, 8)
    first.save(tmp_path / "m.head")
    with LocalServer(tmp_path) as server:
        client = Client(server.address, model="m", accept_model=lambda _: True)
        client.predict(x[:1])
        client._session._batches.clear()  # several calls are wanted
        exchange, calls = client._session._exchange, []

        def swap(rows: np.ndarray, costs: object) -> np.ndarray:
            calls.append(len(rows))
            if len(calls) == 2:
                server.stop()
                second.save(tmp_path / "m.head")
                calls.append(LocalServer(tmp_path, "--listen", server.address))
                time.sleep(1.2)
            return exchange(rows, costs)  # type: ignore[arg-type]

        monkeypatch.setattr(client._session, "_exchange", swap)
        try:
            assert np.abs(client.predict(x) - second.evaluate(x)).max() <= client.plan.error_bound
        finally:
            client.close()
            calls[2].stop()
