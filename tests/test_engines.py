"""One suite, every engine: whatever evaluates a head is held to its plaintext evaluation.

An engine is a function (name of a served head, rows) -> (logits, stated bound). Later engines join ENGINES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from secure_infer.heads import Head
from secure_infer_client import Client
from secure_infer_client.local_server import LocalServer
from shared import unit_rows

Engine = Callable[[str, np.ndarray], tuple[np.ndarray, float]]
ENGINES = ("plaintext", "ckks both-private", "ckks input-private")
HEADS = ("small", "wide", "binary", "public")


@pytest.fixture(scope="module")
def permissive(models_dir: object) -> Iterator[LocalServer]:
    """A server that allows input-private for every model."""
    with LocalServer(models_dir, "--plaintext-baseline", "--privacy", "input-private") as running:  # type: ignore[arg-type]
        yield running


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, permissive: LocalServer) -> Engine:
    def evaluate(name: str, x: np.ndarray) -> tuple[np.ndarray, float]:
        scheme, _, privacy = request.param.partition(" ")
        with Client(permissive.address, model=name, privacy=privacy or None) as client:
            if scheme == "plaintext":
                return client.evaluate_plaintext(x), 1e-12
            assert client.plan.privacy == privacy
            return client.predict(x), client.plan.error_bound

    return evaluate


def rows(head: Head, count: int) -> np.ndarray:
    return unit_rows(count, head.features) * (1.0 if head.contract.norm else head.contract.bound)


@pytest.mark.parametrize("name", HEADS)
def test_one_row(engine: Engine, heads: dict[str, Head], name: str) -> None:
    x = rows(heads[name], 1)
    logits, bound = engine(name, x)
    assert logits.shape == (1, heads[name].outputs)
    assert logits.dtype == np.float64
    assert np.abs(logits - heads[name].evaluate(x)).max() <= bound


@pytest.mark.parametrize("name", HEADS)
def test_many_rows_keep_their_order(engine: Engine, heads: dict[str, Head], name: str) -> None:
    x = rows(heads[name], 70)  # more than one call carries
    logits, bound = engine(name, x)
    assert np.abs(logits - heads[name].evaluate(x)).max() <= bound


def test_float32_zero_and_edge_inputs(engine: Engine, heads: dict[str, Head]) -> None:
    head = heads["binary"]
    x = np.stack([np.zeros(30), np.full(30, 6.0), np.full(30, -6.0), np.eye(30)[3]]).astype(np.float32)
    logits, bound = engine("binary", x)
    assert np.abs(logits - head.evaluate(x)).max() <= bound
