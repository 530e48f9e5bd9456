"""Claim: a key is its owner's alone: who knows its digest, or replays its bytes, neither sees, uses nor drops it.

Adversary: another tenant of the same server, authenticated as itself, who knows a victim's key digest (it is in every
request) and perhaps its bytes (they are public). Unprotected variant: the same server with keys by digest alone, as a
content-addressed store would have them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from secure_infer.errors import MalformedRequest
from secure_infer_server import clients
from secure_infer_server.app import App
from secure_infer_server.gate import NOTHING, Ask, OpenGate, _Admitted
from secure_infer_server.keys import servicer
from secure_infer_server.settings import Settings
from secure_infer_server.workers.settings import WorkerSettings
from server.keys.raw import Tenant
from shared import hidden_head, linear_head, unit_rows

HEADS = {"loop": linear_head(8, 3), "workers": hidden_head((600, 4, 2))}


class Named(OpenGate):
    """Stands for any authentication: callers are who they say."""

    def admit(self, context: Any, method: str, model: str | None = None, ask: Ask = NOTHING) -> Any:
        admitted = _Admitted()
        admitted.caller = str(dict(context.invocation_metadata())["caller"])
        return admitted


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[App, str]]:
    path = tmp_path_factory.mktemp("models")
    for name, head in HEADS.items():
        head.save(path / f"{name}.head")
    app = App(Settings(path, "127.0.0.1", 0, insecure=True, blinds_per_key=8, workers=WorkerSettings(count=1)), Named())
    yield app, app.start()
    app.stop()


@pytest.fixture(params=[False, True], ids=["ours", "by-digest-alone"])
def shared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the server keeps keys by digest alone."""
    if request.param:
        for module in (clients, servicer):
            monkeypatch.setattr(module, "owner_of", lambda caller: "everybody")
    return bool(request.param)


@pytest.fixture(params=list(HEADS))
def parties(
    request: pytest.FixtureRequest, running: tuple[App, str], shared: bool
) -> Iterator[tuple[Tenant, Tenant, np.ndarray]]:
    """The victim, whose key is held; the adversary, who holds none; the victim's row."""
    app, address = running
    with grpc.insecure_channel(address) as channel:
        victim, adversary = (Tenant(address, channel, app.registry.get(request.param), name=n) for n in ("vi", "mal"))
        victim.upload()
        yield victim, adversary, unit_rows(1, HEADS[request.param].features)[0]


def answered(tenant: Tenant, x: np.ndarray, digest: bytes) -> bool:
    return tenant.infer(x, digest).WhichOneof("result") == "answers"


def test_that_a_key_is_held_is_told_to_its_owner_alone(
    parties: tuple[Tenant, Tenant, np.ndarray], shared: bool
) -> None:
    """Otherwise: whether a hospital is a client here, under which key, and since when."""
    victim, adversary, _ = parties
    assert adversary.held(victim.digest) == ((len(victim.data), True) if shared else (0, False))
    assert (victim.digest in adversary.listed()) is shared
    assert victim.held() == (len(victim.data), True)


def test_a_known_digest_does_not_open_the_key(parties: tuple[Tenant, Tenant, np.ndarray], shared: bool) -> None:
    victim, adversary, x = parties
    assert answered(adversary, x, victim.digest) is shared


def test_a_known_digest_does_not_stand_for_the_bytes(parties: tuple[Tenant, Tenant, np.ndarray], shared: bool) -> None:
    """An upload with nothing to send is taken where the bytes are there: from whom, matters."""
    victim, adversary, _ = parties
    adversary.digest, adversary.data = victim.digest, bytes(len(victim.data))
    if shared:
        adversary.upload(len(victim.data))
    else:
        with pytest.raises(MalformedRequest, match="0 bytes are held"):
            adversary.upload(len(victim.data))


def test_another_tenants_key_is_not_dropped(parties: tuple[Tenant, Tenant, np.ndarray], shared: bool) -> None:
    victim, adversary, x = parties
    assert adversary.delete(victim.digest) == shared
    assert answered(victim, x, victim.digest) is not shared


def test_replayed_bytes_are_another_key(
    parties: tuple[Tenant, Tenant, np.ndarray], shared: bool, running: tuple[App, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The victim's public bytes, uploaded by another: what it then does with them does not touch the victim's blinds, and
    what it sees does not depend on them. Otherwise blinds that are ready tell that the victim is at work, and can be used
    up. Deleting them drops the replayed key alone."""
    victim, adversary, x = parties
    _until_ready(victim, running[0])
    monkeypatch.setattr(
        running[0].blinds, "_maker", None
    )  # none are made from here on: those that are ready are what there is
    adversary.digest, adversary.data = victim.digest, victim.data
    adversary.upload()
    found = adversary.infer(x, victim.digest).answers.times
    assert (found.blinds_ready > 0) is shared
    assert (victim.infer(x).answers.times.blinds_ready > 0) or shared
    assert adversary.delete() == 1
    assert answered(victim, x, victim.digest) is not shared


def _until_ready(victim: Tenant, app: App) -> None:
    """Until blinds for several queries of the victim are ready."""
    end = time.monotonic() + 30
    while not any(
        len(stock.ready) >= 4 and bytes(stock.public[1]) in victim.data for stock in list(app.blinds._stocks.values())
    ):
        assert time.monotonic() < end, "no blinds were made"
        time.sleep(0.01)
