"""One suite, every engine: whatever evaluates a head is held to its plaintext evaluation.

An engine is a function (name of a served head, rows) -> (logits, stated bound). Later engines join ENGINES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from secure_infer.ckks.coefficient import CoefficientPlan
from secure_infer.ckks.slots import SlotPlan
from secure_infer.heads import Head, Polynomial, ReLU
from secure_infer.mpc.sharefile import share_model
from secure_infer_client import Client
from secure_infer_client.local_parties import LocalParties
from secure_infer_client.local_server import LocalServer
from shared import hidden_head, linear_head, unit_rows

Engine = Callable[[str, np.ndarray], tuple[np.ndarray, float]]
ENGINES = ("plaintext", "ckks both-private", "ckks input-private", "mpc replicated", "mpc shared")


def curve(degree: int, units: int) -> Polynomial:
    """A polynomial of that degree for each unit."""
    return Polynomial(np.random.default_rng(degree).normal(size=(units, degree + 1)) / np.arange(1, degree + 2))


HEADS = {
    "small": linear_head(8, 3),
    "wide": linear_head(384, 21, scale=17.0),
    "binary": linear_head(30, 1, bound=6.0, norm=None),
    "square": hidden_head((8, 6, 3), bound=2.0, norm=None),
    "quadratic": hidden_head((12, 9, 2), curve(2, 9)),
    "cubic": hidden_head((6, 5, 2), curve(3, 5)),
    "quartic": hidden_head((5, 4, 1), curve(4, 4)),
    "many-features": hidden_head((600, 12, 3), curve(2, 12)),
    "two-layers": hidden_head((40, 4, 4, 2)),
    "two-layers-few-features": hidden_head((6, 4, 4, 2), seed=1),
    "split-affine": hidden_head((20, 8, 3), ReLU(), public_layers=2),
    "split-hidden": hidden_head((300, 24, 10, 2), Polynomial([0.1, 0.8, 0.1]), public_layers=2),
}
RECTIFIED = {
    "relu": hidden_head((12, 9, 3), ReLU()),
    "two-relus": hidden_head((40, 6, 5, 2), ReLU()),
}
"""Heads that secret sharing alone evaluates."""
SLOTS = {"many-features", "two-layers"}
"""Heads that no other kind of plan evaluates."""


@pytest.fixture(scope="module")
def permissive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server that allows input-private for every model."""
    directory = tmp_path_factory.mktemp("engines")
    for name, head in HEADS.items():
        head.save(directory / f"{name}.head")
    with LocalServer(directory, "--plaintext-baseline", "--privacy", "input-private") as running:
        yield running


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalParties]:
    """Two parties with every head twice: as it is, and as NAME-shared in shares."""
    directories = [tmp_path_factory.mktemp("party0"), tmp_path_factory.mktemp("party1")]
    for name, head in {**HEADS, **RECTIFIED}.items():
        for directory in directories:
            head.save(directory / f"{name}.head")
        share_model(head, directories, f"{name}-shared")
    with LocalParties(directories) as running:
        yield running


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    scheme, _, detail = request.param.partition(" ")
    if scheme == "mpc":
        addresses = request.getfixturevalue("parties").addresses
        suffix = "-shared" if detail == "shared" else ""

        def shared(name: str, x: np.ndarray) -> tuple[np.ndarray, float]:
            with Client(addresses, model=name + suffix, scheme="mpc") as client:
                return client.predict(x), client.plan.error_bound

        return shared
    permissive, privacy = request.getfixturevalue("permissive"), detail

    def evaluate(name: str, x: np.ndarray) -> tuple[np.ndarray, float]:
        with Client(permissive.address, model=name, privacy=privacy or None) as client:
            if scheme == "plaintext":
                return client.evaluate_plaintext(x), 1e-12
            assert client.plan.privacy == privacy
            return client.predict(x), client.plan.error_bound

    return evaluate


def rows(head: Head, count: int) -> np.ndarray:
    return unit_rows(count, head.features) * (1.0 if head.contract.norm else head.contract.bound)


@pytest.mark.parametrize("name", HEADS)
def test_one_row(engine: Engine, name: str) -> None:
    x = rows(HEADS[name], 1)
    logits, bound = engine(name, x)
    assert logits.shape == (1, HEADS[name].outputs)
    assert logits.dtype == np.float64
    assert np.abs(logits - HEADS[name].evaluate(x)).max() <= bound


@pytest.mark.parametrize("name", HEADS)
def test_many_rows_keep_their_order(engine: Engine, name: str) -> None:
    x = rows(HEADS[name], 18 if name in SLOTS else 70)  # more than one call carries
    logits, bound = engine(name, x)
    assert np.abs(logits - HEADS[name].evaluate(x)).max() <= bound


def test_float32_zero_and_edge_inputs(engine: Engine) -> None:
    x = np.stack([np.zeros(30), np.full(30, 6.0), np.full(30, -6.0), np.eye(30)[3]]).astype(np.float32)
    logits, bound = engine("binary", x)
    assert np.abs(logits - HEADS["binary"].evaluate(x)).max() <= bound


def test_edge_inputs_of_a_hidden_layer(engine: Engine) -> None:
    x = np.stack([np.zeros(8), np.full(8, 2.0), np.full(8, -2.0), np.eye(8)[3]]).astype(np.float32)
    logits, bound = engine("square", x)
    assert np.abs(logits - HEADS["square"].evaluate(x)).max() <= bound


@pytest.mark.parametrize("privacy", ["both-private", "input-private"])
@pytest.mark.parametrize("name", HEADS)
def test_each_head_has_the_kind_of_plan_it_is_there_for(permissive: LocalServer, name: str, privacy: str) -> None:
    with Client(permissive.address, model=name, privacy=privacy) as client:
        plan = client.plan
        if name in SLOTS:
            assert isinstance(plan, SlotPlan)
            return
        assert isinstance(plan, CoefficientPlan)
        lifts = {"square": 2, "quadratic": 2, "cubic": 3, "quartic": 4, "split-hidden": 2, "two-layers-few-features": 4}
        assert plan.lift == lifts.get(name, 1)
        assert plan.features == client.spec.encrypted.features


def test_public_layers_leave_less_to_encrypt(permissive: LocalServer) -> None:
    for name, width in {"split-affine": 8, "split-hidden": 24}.items():
        with Client(permissive.address, model=name) as client:
            assert (client.plan.features, len(client.spec.public_layers)) == (width, 2)


def test_a_client_may_ask_for_other_slots_by_its_link(permissive: LocalServer) -> None:
    """A slow link takes fewer bytes than a fast one, and answers as well."""
    x, found = rows(HEADS["many-features"], 1), []
    for link in ("10gbit,50us", "300kbit,50us"):
        with Client(permissive.address, model="many-features", privacy="both-private", link=link) as client:
            assert np.abs(client.predict(x) - HEADS["many-features"].evaluate(x)).max() <= client.plan.error_bound
            found.append(client.plan.query_bytes + client.plan.answer_bytes)
    assert found[1] <= found[0]


@pytest.mark.parametrize("suffix", ["", "-shared"])
@pytest.mark.parametrize("name", RECTIFIED)
def test_relu_by_two_parties(parties: LocalParties, name: str, suffix: str) -> None:
    x = rows(RECTIFIED[name], 70)
    with Client(parties.addresses, model=name + suffix, scheme="mpc") as client:
        assert np.abs(client.predict(x) - RECTIFIED[name].evaluate(x)).max() <= client.plan.error_bound
        stats = client.last_call.stats
        assert (stats.records, stats.retries) == (70, 0)
        assert stats.link_rounds >= client.plan.rounds
