"""The gate of callers, budgets and audit: who is let through, what is charged, what is written down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from secure_infer.errors import (
    AuditUnavailable,
    BudgetExhausted,
    InternalFault,
    MalformedRequest,
    PermissionDenied,
    RequestIdReused,
    SecondFactorNeeded,
    SettingsError,
    Unauthenticated,
    UnknownModel,
)
from secure_infer.v1 import models_pb2, models_pb2_grpc
from secure_infer_client import Client
from secure_infer_server.app import App
from secure_infer_server.audit.settings import AuditSettings
from secure_infer_server.budgets import Allowance, BudgetSettings
from secure_infer_server.callers.permissions import PermissionSettings
from secure_infer_server.gate import Ask
from secure_infer_server.guarded import CallerSettings, GuardedGate, GuardSettings
from secure_infer_server.settings import Settings
from secure_infer_server.workers.settings import WorkerSettings
from shared import linear_head, unit_rows, until

DIGEST, OTHER = b"m" * 32, b"o" * 32
MODELS = {"icd": [DIGEST], "other": [OTHER]}
INFER, DELETE = "/secure_infer.v1.InferenceService/Infer", "/secure_infer.v1.KeyService/DeleteKeys"
POLICY = """
[roles]
client = ["anonymous"]
operator = ["cn:it-anna"]
[[allow]]
roles = ["client"]
methods = ["ModelService/*", "KeyService/*"]
[[allow]]
roles = ["client"]
methods = ["InferenceService/*"]
models = ["icd"]
[[allow]]
roles = ["client", "operator"]
methods = ["*:others"]
"""


def context(kind: bytes = b"insecure", peer: str = "ipv4:127.0.0.1:40000") -> Any:
    found = {"transport_security_type": [kind]}
    return SimpleNamespace(auth_context=lambda: found, invocation_metadata=tuple, peer=lambda: peer)


def ask(**changed: Any) -> Ask:
    given = {"model_digest": DIGEST, "records": 1, "request_id": b"i" * 16, "queries": lambda: [[b"one", b"two"]]}
    return Ask(**(given | changed))


def settings(path: Path, **changed: Any) -> GuardSettings:
    (path / "policy.toml").write_text(POLICY)
    given = {
        "callers": CallerSettings(permissions=PermissionSettings(path / "policy.toml")),
        "budgets": BudgetSettings(path / "budgets.sqlite", Allowance(total=3), block=1),
        "audit": AuditSettings(path / "log", key=path / "audit.key", commit=0.0),
    }
    return GuardSettings(**(given | changed))


Opened = Callable[..., GuardedGate]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    gates = []

    def make(**changed: Any) -> GuardedGate:
        gate = GuardedGate(settings(tmp_path, **changed))
        gate.serve(MODELS)
        gates.append(gate)
        return gate

    yield make
    for gate in gates:
        gate.close()


def entries(path: Path, gate: GuardedGate) -> list[dict[str, Any]]:
    """Those of calls, in order."""
    assert gate._audit is not None
    assert gate._audit.flush(10)
    lines = (path / "log" / "audit-00000001.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if "who" in entry]


def used(gate: GuardedGate, who: str = "anonymous") -> int:
    assert gate._budgets is not None
    return gate._budgets.used(who, DIGEST).total


def test_an_answer_is_charged_written_down_and_given_again(opened: Opened, tmp_path: Path) -> None:
    gate = opened()
    with gate.admit(context(), INFER, "icd", ask()) as admission:
        assert (admission.caller, admission.stored) == ("anonymous", None)
        admission.finish("ok", b"the answer")
    with gate.admit(context(), INFER, "icd", ask()) as admission:
        assert admission.stored == b"the answer"
        admission.finish("ok")
    assert used(gate) == 1
    first, second = entries(tmp_path, gate)
    assert (first["who"], first["method"], first["outcome"]) == ("anonymous", "InferenceService/Infer", "ok")
    assert (first["model"], first["model_digest"], first["records"]) == ("icd", DIGEST.hex(), 1)
    assert (first["bytes_in"], first["bytes_out"]) == (6, 10)
    assert second["stored"]
    assert "records" not in second
    assert second["bytes_out"] == 10
    assert first["request"] == second["request"]


def test_a_request_id_is_for_one_request(opened: Opened) -> None:
    gate = opened()
    with gate.admit(context(), INFER, "icd", ask()) as admission:
        admission.finish("ok", b"the answer")
    with pytest.raises(RequestIdReused):
        gate.admit(context(), INFER, "icd", ask(queries=lambda: [[b"one", b"else"]]))
    with pytest.raises(RequestIdReused):  # the same ciphertexts, as another number of queries
        gate.admit(context(), INFER, "icd", ask(queries=lambda: [[b"one", b"two"], []], records=2))


@pytest.mark.parametrize("flavour", ["thread", "loop"])
def test_a_spent_budget_ends_it(opened: Opened, tmp_path: Path, flavour: str) -> None:
    gate = opened()

    def admit() -> Any:
        new = ask(request_id=b"")
        if flavour == "loop":
            return asyncio.run(gate.aadmit(context(), INFER, "icd", new))
        return gate.admit(context(), INFER, "icd", new)

    for _ in range(3):
        with admit() as admission:
            admission.finish("ok", b"answer")
    with pytest.raises(BudgetExhausted):
        admit()
    assert [entry["outcome"] for entry in entries(tmp_path, gate)] == ["ok"] * 3 + ["BUDGET_EXHAUSTED"]


def test_what_was_not_answered_is_given_back(opened: Opened, tmp_path: Path) -> None:
    gate = opened()
    for error in (MalformedRequest("x"), ValueError("x"), asyncio.CancelledError()):
        with pytest.raises(type(error)), gate.admit(context(), INFER, "icd", ask()):
            raise error
    with gate.admit(context(), INFER, "icd", ask()) as admission:
        admission.finish("unknown_key")
    with gate.admit(context(), INFER, "icd", ask()):
        pass  # left without a word
    for _ in range(3):  # so that all three records are there
        with gate.admit(context(), INFER, "icd", ask(request_id=b"")) as admission:
            admission.finish("ok")
    outcomes = [entry["outcome"] for entry in entries(tmp_path, gate)]
    failed = ["MALFORMED_REQUEST", "INTERNAL_FAULT", "CANCELLED", "unknown_key", "INTERNAL_FAULT"]
    assert outcomes == [*failed, "ok", "ok", "ok"]
    assert all("records" not in entry for entry in entries(tmp_path, gate)[:5])


def test_a_batch_is_spent_and_written_down_before_its_first_answer(opened: Opened, tmp_path: Path) -> None:
    gate = opened()
    batch = ask(records=3, queries=None)
    with pytest.raises(MalformedRequest), gate.admit(context(), INFER, "icd", batch) as admission:
        admission.begin_answer()
        admission.begin_answer()
        raise MalformedRequest("the rest did not come")
    with pytest.raises(BudgetExhausted):
        gate.admit(context(), INFER, "icd", batch)
    begun, ended, refused = entries(tmp_path, gate)
    assert (begun["outcome"], begun["records"]) == ("begun", 3)
    assert (ended["outcome"], ended.get("records")) == ("MALFORMED_REQUEST", None)
    assert refused["outcome"] == "BUDGET_EXHAUSTED"


def test_nothing_is_charged_that_will_be_refused(opened: Opened, tmp_path: Path) -> None:
    gate = opened(callers=None)
    for model, wrong in (("nobody", ask()), ("icd", ask(model_digest=OTHER)), ("icd", ask(records=0))):
        with gate.admit(context(), INFER, model, wrong) as admission, pytest.raises(InternalFault, match="not charged"):
            admission.finish("ok", b"evaluated all the same")
    assert used(gate) == 0
    with pytest.raises(UnknownModel), gate.admit(context(), INFER, "made up by the client", ask()):
        raise UnknownModel("x")
    last = entries(tmp_path, gate)[-1]
    assert last["outcome"] == "UNKNOWN_MODEL"
    assert "model" not in last


def test_who_is_refused_is_written_down(opened: Opened, tmp_path: Path) -> None:
    gate = opened()
    far = context(peer="ipv4:10.0.0.9:1")
    with pytest.raises(Unauthenticated):
        gate.authenticate(far, INFER)
    with pytest.raises(Unauthenticated):
        gate.admit(far, INFER, "icd", ask())
    with pytest.raises(PermissionDenied):
        gate.authenticate(context(), "/secure_infer.v1.AuditService/Export")
    with pytest.raises(PermissionDenied, match="not for this model"):
        gate.admit(context(), INFER, "other", ask(model_digest=OTHER))
    assert [(entry["who"], entry["outcome"]) for entry in entries(tmp_path, gate)] == [
        ("unauthenticated", "UNAUTHENTICATED"),
        ("unauthenticated", "UNAUTHENTICATED"),
        ("anonymous", "PERMISSION_DENIED"),
        ("anonymous", "PERMISSION_DENIED"),
    ]


def test_what_is_anothers_needs_more(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = opened()
    with gate.admit(context(), DELETE) as admission:
        admission.finish("ok")
    with pytest.raises(PermissionDenied):
        gate.admit(context(), f"{DELETE}:others")
    monkeypatch.setattr("secure_infer_server.mpc.roles.ANONYMOUS", "cn:it-anna")
    operator = context()
    gate.authenticate(operator, DELETE)  # by the rule for others' keys alone
    with pytest.raises(SecondFactorNeeded):
        gate.admit(operator, f"{DELETE}:others")
    assert entries(tmp_path, gate)[-1]["method"] == "KeyService/DeleteKeys/others"


def test_a_caller_is_never_anothers(opened: Opened) -> None:
    """Contexts are told apart, also where one thread serves one call after another."""
    gate = opened()
    gate.authenticate(context(), INFER)
    with pytest.raises(Unauthenticated):
        gate.admit(context(peer="ipv4:10.0.0.9:1"), INFER, "icd", ask())


def test_a_log_that_takes_no_entries_stops_answers(opened: Opened) -> None:
    gate = opened()
    with gate.admit(context(), INFER, "icd", ask()) as admission:
        assert gate._audit is not None
        gate._audit.close()
        with pytest.raises(AuditUnavailable):
            admission.finish("ok", b"answer")
    assert gate._budgets is not None
    assert gate._budgets.charge("anonymous", DIGEST, 3).records == 3  # all are there
    with pytest.raises(AuditUnavailable):
        gate.admit(context(), INFER, "icd", ask())


def test_every_part_is_optional(opened: Opened) -> None:
    for parts in ({"callers"}, {"budgets"}, {"audit"}, set()):
        gate = opened(**{name: None for name in ("callers", "budgets", "audit") if name not in parts})
        gate.authenticate(context(), INFER)
        with gate.admit(context(), INFER, "icd", ask()) as admission:
            admission.finish("ok", b"answer")
        gate.close()


def test_names_have_to_fit(opened: Opened, tmp_path: Path) -> None:
    budgets = BudgetSettings(tmp_path / "budgets.sqlite", Allowance(1), {"icf": Allowance(9)})
    with pytest.raises(SettingsError, match="'icf'"):
        opened(budgets=budgets)
    with pytest.raises(SettingsError, match="rename"):
        settings(tmp_path, budgets=None).require_fit(["my model"])


def test_rules_that_fit_nothing_are_told_once_and_again_when_they_change(
    opened: Opened, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[str]:
        found = [record.message for record in caplog.records if record.levelname == "WARNING"]
        caplog.clear()
        return [text for text in found if text.startswith("policy: ")]

    gate = opened(budgets=None)
    assert told() == []
    gate.start()
    (tmp_path / "policy.toml").write_text(POLICY.replace('["icd"]', '["icb"]'))
    until(lambda: "'icb'" in caplog.text)
    gate.serve(MODELS)
    assert told() == ["policy: [[allow]] number 2: no served model is called 'icb'"]
    gate.serve({**MODELS, "icb": [b"b" * 32]})
    gate.serve(MODELS)  # and is gone again
    assert told() == ["policy: [[allow]] number 2: no served model is called 'icb'"]


def test_a_server_behind_it(tmp_path: Path) -> None:
    """Every method is written down, and batches count as all of their places."""
    directory = tmp_path / "models"
    directory.mkdir()
    linear_head(8, 3).save(directory / "icd.head")
    gate = GuardedGate(settings(tmp_path, budgets=BudgetSettings(tmp_path / "b", Allowance(total=1 << 13))))
    app = App(
        Settings(directory, "127.0.0.1", 0, insecure=True, blinds_per_key=4, workers=WorkerSettings(count=0)), gate
    )
    gate.start()
    address = app.start()
    try:
        with Client(address, model="icd") as client, grpc.insecure_channel(address) as channel:
            client.predict(unit_rows(2, 8))
            places = client.batch_plans[0].records
            client.predict(unit_rows(places, 8))
            with pytest.raises(BudgetExhausted):
                for _ in range(1 << 13):
                    client.predict(unit_rows(places, 8))
            models_pb2_grpc.ModelServiceStub(channel).ListModels(models_pb2.ListModelsRequest())
        found = entries(tmp_path, gate)
    finally:
        app.stop()
        gate.close()
    (single,) = [e for e in found if e["method"] == "InferenceService/Infer" and e["outcome"] == "ok"]
    assert single["records"] == 2
    begun, ended = [e for e in found if e["method"] == "InferenceService/InferBatch"][:2]
    assert (begun["outcome"], begun["records"]) == ("begun", places)
    assert ended["outcome"] == "ok"
    assert ended["bytes_in"] > ended["bytes_out"] > 0
    upload = next(e for e in found if e["method"] == "KeyService/UploadKeys")
    assert upload["bytes_in"] > 1000
    assert {e["method"].partition("/")[2] for e in found} == {
        *("GetModel", "UploadKeys", "Infer", "InferBatch", "ListModels")
    }
