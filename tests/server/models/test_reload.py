"""Models that change under a server that answers: who is answered by which version, and what the server lets go of."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

from secure_infer.ckks.batch.packing import read_batch
from secure_infer.errors import BudgetExhausted, ModelChanged, SecureInferError, SettingsError, UnknownModel
from secure_infer.heads import Head, Linear, ReLU
from secure_infer.v1 import models_pb2, models_pb2_grpc
from secure_infer_client import Client, transport
from secure_infer_client.local_server import LocalServer
from secure_infer_client.record import Record, read
from secure_infer_server import clients
from secure_infer_server.app import App
from secure_infer_server.audit.settings import AuditSettings
from secure_infer_server.budgets import Allowance, BudgetSettings
from secure_infer_server.gate import Ask
from secure_infer_server.guarded import GuardedGate, GuardSettings
from secure_infer_server.models.settings import ReloadSettings
from secure_infer_server.settings import Policy, Settings
from secure_infer_server.workers.settings import WorkerSettings
from server.test_batches import Caller
from server.test_guarded import INFER, context
from shared import hidden_head, linear_head, unit_rows, until

OLD, NEW, NEWEST = (linear_head(8, 3, seed=seed) for seed in (0, 1, 2))
ROWS = unit_rows(5, 8)


class Served:
    """A server whose directory is looked at when a test says so, and whose clock goes on then alone."""

    def __init__(self, directory: Path, gate: Any = None, **settings: Any) -> None:
        reload = {"watch": 0.0, "grace": 60.0, "kept": 2} | settings.pop("reload", {})
        given: dict[str, Any] = {"insecure": True, "blinds_per_key": 4, "workers": WorkerSettings(0)} | settings
        self.directory, self.now = directory, 0.0
        self.app = App(Settings(directory, "127.0.0.1", 0, reload=ReloadSettings(**reload), **given), gate)
        self.registry = self.app.registry
        self.registry._clock = lambda: self.now
        self.address = self.app.start()

    def save(self, head: Head, name: str = "m") -> None:
        head.save(self.directory / f"{name}.head")
        self.look()

    def look(self) -> None:
        for _ in range(2):
            self.app._models.look()

    def later(self, seconds: float = 61.0) -> None:
        self.now += seconds
        self.look()

    def ready(self, name: str = "m") -> models_pb2.ModelReadyResponse:
        return ready(self.address, name)


def ready(address: str, name: str) -> models_pb2.ModelReadyResponse:
    with grpc.insecure_channel(address) as channel:
        stub = models_pb2_grpc.ModelServiceStub(channel)
        request = models_pb2.ModelReadyRequest(model=name)
        return transport.call(address, 10, lambda: stub.ModelReady(request, timeout=10))


@contextmanager
def serving(directory: Path, *args: Any, heads: dict[str, Head] | None = None, **settings: Any) -> Iterator[Served]:
    for name, head in (heads or {"m": OLD}).items():
        head.save(directory / f"{name}.head")
    served = Served(directory, *args, **settings)
    yield served
    served.app.stop()


def answers(client: Client, head: Head) -> bool:
    return bool(np.abs(client.predict(ROWS) - head.evaluate(ROWS)).max() <= client.plan.error_bound)


def test_who_pinned_a_version_is_answered_by_it_until_its_time_is_over(tmp_path: Path) -> None:
    asked: list[str] = []
    with serving(tmp_path) as served:
        strict = Client(served.address, model="m")
        open_minded = Client(served.address, model="m", accept_model=lambda spec: not asked.append(spec.digest))
        with strict, open_minded:
            assert answers(strict, OLD)
            assert answers(open_minded, OLD)
            served.save(NEW)
            with Client(served.address, model="m") as fresh:
                assert answers(fresh, NEW)
                assert answers(strict, OLD)
                assert answers(open_minded, OLD)
                served.later()
                assert answers(fresh, NEW)
            with pytest.raises(ModelChanged, match="changed on the server"):
                strict.predict(ROWS)
            assert answers(open_minded, NEW)
            assert asked == [NEW.digest]


class SecondClass:
    """An embedder whose every text is of the second class of `swapped` heads."""

    identity = "toy"

    def __call__(self, texts: Sequence[str]) -> Any:
        return np.eye(8)[[1] * len(texts)]


def swapped(*labels: str) -> Head:
    """The same network under labels in another order, as after a training run on shuffled data."""
    return Head(
        [Linear(np.eye(2, 8), np.zeros(2))], labels=list(labels), input_bound=1.0, input_norm=1.0, embedder="toy"
    )


def test_the_call_that_meets_a_new_model_reads_its_answer_by_it(tmp_path: Path) -> None:
    """Labels, calibration and digest are those of the model that answered, in records, too."""
    old, new = swapped("benign", "malignant"), swapped("malignant", "benign")
    (tmp_path / "models").mkdir()
    with (
        serving(tmp_path / "models", heads={"m": old}) as served,
        Record(tmp_path / "r", "correct horse", operator="o", answers=True) as record,
        Client(
            served.address,
            model="m",
            embedder=SecondClass(),
            deidentify=False,
            accept_model=lambda _: True,
            record=record,
        ) as client,
    ):
        asks = {
            "classify": lambda: client.classify(["text"])[0].label,
            "decide": lambda: client.decide(np.eye(8)[[1]])[0],
            "explain": lambda: client.explain("some text").label,
            "predict": lambda: new.labels[int(client.predict(np.eye(8)[[1]])[0].argmax())],
        }
        for ask in asks.values():
            served.save(old)
            served.later()
            assert client.classify(["text"])[0].label == "malignant"
            served.save(new)
            served.later()
            assert ask() == "benign"
            assert client.last_call.model_digest == new.digest
    with read(tmp_path / "r", "correct horse") as (view, found):
        calls = [(one["call"], one["model_digest"], *one["answers"]) for one in found]
        assert not view.problems
    expected = [[("classify", old.digest, "malignant"), (call, new.digest, "benign")] for call in asks]
    assert calls == [one for pair in expected for one in pair]


def test_a_bad_file_leaves_everything_as_it_was_and_says_so(tmp_path: Path) -> None:
    with serving(tmp_path) as served, Client(served.address, model="m") as client:
        since = served.ready().since
        assert served.ready() == models_pb2.ModelReadyResponse(
            ready=True, digest=served.registry.get("m").digest, since=since
        )
        whole = (tmp_path / "m.head").read_bytes()
        (tmp_path / "m.head").write_bytes(whole[:-8])
        (tmp_path / "new.head").write_bytes(whole[:100])
        served.look()
        assert answers(client, OLD)
        found = served.ready()
        assert (found.ready, found.digest.hex(), found.reason) == (True, OLD.digest, "")
        assert "m.head: not a head artifact, or cut short" in found.held_back
        assert "new.head: not a head artifact" in served.ready("new").reason
        with pytest.raises(UnknownModel, match="unknown model 'none'; served: m"):
            served.ready("none")
        # It loads, and yet would take the model away: nothing encrypted can be asked of it.
        hidden_head((8, 5, 2), ReLU()).save(tmp_path / "m.head")
        served.look()
        assert "cannot be evaluated under encryption" in served.ready().held_back
        served.save(NEW)
        found = served.ready()
        assert (found.digest.hex(), found.held_back, found.earlier_versions) == (NEW.digest, "", 1)


def test_new_models_come_and_removed_ones_go(tmp_path: Path) -> None:
    policies = {"m": Policy(smudging=22)}
    with serving(tmp_path, policies=policies) as served, Client(served.address, model="m") as client:
        assert answers(client, OLD)
        served.save(NEWEST, "n")
        (tmp_path / "m.head").unlink()
        served.look()
        with Client(served.address, model="n") as other:
            assert answers(other, NEWEST)
        assert answers(client, OLD)
        with Client(served.address, model="m") as fresh, pytest.raises(UnknownModel, match="served: n"):
            fresh.predict(ROWS)
        assert not served.ready().ready
        served.later()
        with pytest.raises(UnknownModel):
            client.predict(ROWS)
        served.save(NEW)  # its policy has waited for it
        with Client(served.address, model="m") as back:
            assert answers(back, NEW)
            assert back.plan.smudging_bits >= 22
        # An empty directory is no wish to stop.
        for file in tmp_path.glob("*.head"):
            file.unlink()
        served.later()
        assert served.registry.names() == ["m", "n"]


def test_a_batch_under_way_is_answered_by_the_version_it_began_with(tmp_path: Path) -> None:
    with serving(tmp_path, reload={"grace": 0.0, "kept": 0}) as served:
        caller = Caller(served.app, served.address)
        caller.upload()
        header, *features = caller.batch(ROWS)

        def messages() -> Iterator[Message]:
            yield header
            yield from features[:4]
            until(lambda: served.app.front.lane._busy)  # it has begun
            served.save(NEW)
            yield from features[4:]

        responses = caller.send(messages())
        found = [response.answer.product for response in responses if response.HasField("answer")]
        logits = read_batch(caller.plan, caller.key.polynomial(), found, len(ROWS))
        assert np.abs(logits - OLD.evaluate(ROWS)).max() <= caller.plan.error_bound
        caller.request_id = secrets.token_bytes(16)
        with pytest.raises(ModelChanged):
            caller.send(caller.batch(ROWS))


def test_what_is_kept_for_a_version_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "INLINE_SECONDS", 0.0)  # all goes to workers
    slow = [linear_head(12, 3, seed=seed) for seed in (0, 1)]
    with serving(tmp_path, heads={"m": OLD, "slow": slow[0]}) as served:
        app, x = served.app, unit_rows(2, 12)
        with Client(served.address, model="slow", accept_model=lambda _: True) as client:
            first = client.plan.digest
            client.predict(x)
            assert not app.front.clients.inline(bytes.fromhex(first))
            served.save(slow[1], "slow")
            client.predict(x)  # within its time
            served.later()
            logits = client.predict(x)
            assert np.abs(logits - slow[1].evaluate(x)).max() <= client.plan.error_bound
            client.predict(x)
            second = client.plan.digest
        held = {offer.model for slot in app.front.pool._slots for offer in slot.worker._offers if slot.worker.jobs > 1}
        assert slow[1].digest in held
        offered = {plan.digest for model in served.registry.every() for plan in model.plans}
        assert {stock.plan.digest for stock in app.blinds._stocks.values()} <= offered
        assert second in offered
        # Where a plan is evaluated stays as it was, whatever a later model's estimate says.
        monkeypatch.setattr(clients, "INLINE_SECONDS", 1.0)
        served.save(slow[0], "slow")
        assert not app.front.clients.inline(bytes.fromhex(first))


def test_a_version_that_does_not_fit_the_server_is_held_back(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        served.app._limit = 100
        served.save(NEW)
        assert "needs messages of" in served.ready().held_back
        assert "start anew to serve this version" in served.ready().held_back
        assert served.ready().digest.hex() == OLD.digest


def guard(path: Path, total: int) -> GuardSettings:
    return GuardSettings(
        budgets=BudgetSettings(path / "budgets.sqlite", Allowance(), models={"m": Allowance(total=total)}, block=1),
        audit=AuditSettings(path / "log", key=path / "audit.key", commit=0.0),
    )


def test_every_version_that_is_answered_is_charged(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    gate = GuardedGate(guard(tmp_path, 12))
    with serving(models, gate) as served, Client(served.address, model="m") as old:
        assert answers(old, OLD)  # five records
        served.save(NEW)
        assert answers(old, OLD)
        with pytest.raises(BudgetExhausted):
            old.predict(ROWS)
        with Client(served.address, model="m") as new:  # a version has a count of its own
            assert answers(new, NEW)
        # A copy under another name is the same model to the budget.
        served.save(OLD, "copy")
        with Client(served.address, model="copy") as copy, pytest.raises(BudgetExhausted):
            copy.predict(ROWS)
        # A name that the log does not take is a reason to hold back one model, not to stop.
        served.save(NEWEST, "ä")
        assert "expected a name of letters" in served.ready("ä").reason
        (models / "m.head").unlink()
        served.later()
        assert served.registry.names() == ["copy"]
        assert gate._budgets is not None
        assert 10 <= gate._budgets.used("anonymous", bytes.fromhex(OLD.digest)).total <= 12
    gate.close()


def test_the_gate_is_told_again(tmp_path: Path) -> None:
    gate = GuardedGate(guard(tmp_path, 1))
    with pytest.raises(SettingsError, match="budgets: expected models among"):
        gate.serve({"other": [b"o" * 32]})
    gate.serve({"m": [b"1" * 32], "other": [b"o" * 32]})
    under_way = gate.admit(context(), INFER, "m", Ask(b"1" * 32, records=1))
    gate.serve({"other": [b"o" * 32]})  # the budget's model is gone for now
    with under_way as admission:
        admission.finish("ok", b"answer")
    with pytest.raises(SettingsError, match="expected a name of letters"):
        gate.serve({"ä": [b"a" * 32]})
    gate.serve({"m": [b"2" * 32, b"1" * 32]})
    for digest, expected in ((b"1" * 32, BudgetExhausted), (b"2" * 32, None), (b"2" * 32, BudgetExhausted)):
        try:
            with gate.admit(context(), INFER, "m", Ask(digest, records=1)) as admission:
                admission.finish("ok", b"answer")
        except SecureInferError as error:
            assert type(error) is expected
        else:
            assert expected is None
    gate.close()


def test_a_server_process_takes_over_what_changes(tmp_path: Path) -> None:
    OLD.save(tmp_path / "m.head")
    with LocalServer(tmp_path, "--reload", "0.1", "--batches", "0", "--workers", "1") as server:
        with Client(server.address, model="m") as client:
            assert answers(client, OLD)
            (tmp_path / "m.head").write_bytes(b"torn")
            until(lambda: bool(ready(server.address, "m").held_back))
            NEW.save(tmp_path / "m.head")
            until(lambda: ready(server.address, "m").digest.hex() == NEW.digest)
            assert answers(client, OLD)
        with Client(server.address, model="m") as client:
            assert answers(client, NEW)
        assert "the version before stays" in server.log()
