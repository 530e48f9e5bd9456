"""Administrative calls: nothing without a rule and a code, summaries with both, and an entry in the audit log for each."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyotp
import pytest

from secure_infer.errors import (
    BudgetExhausted,
    MalformedRequest,
    PermissionDenied,
    SecondFactorNeeded,
    SecureInferError,
    SettingsError,
)
from secure_infer.v1 import admin_pb2
from secure_infer_client import Client
from secure_infer_server import guarded
from secure_infer_server.admin import versions
from secure_infer_server.admin.caller import Administrator, Credentials
from secure_infer_server.admin.service import METHODS, SERVICE, AdminCalls
from secure_infer_server.admin.servicer import handlers
from secure_infer_server.admin.versions import WatchedModels
from secure_infer_server.app import App
from secure_infer_server.audit.settings import AuditSettings
from secure_infer_server.budgets import Allowance, BudgetSettings
from secure_infer_server.callers.permissions import Permissions, PermissionSettings
from secure_infer_server.callers.second_factor import SecondFactorSettings
from secure_infer_server.commands import certs
from secure_infer_server.guarded import CallerSettings, GuardedGate, GuardSettings
from secure_infer_server.mpc.endpoint import Endpoint, Identity, Listening
from secure_infer_server.observe.calls import Watch
from secure_infer_server.settings import Settings
from secure_infer_server.tls import Tls
from secure_infer_server.workers.settings import WorkerSettings
from shared import linear_head, unit_rows, until

WARD, ANNA, OTTO = "cn:ward-7", "cn:it-anna", "cn:otto"
POLICY = f"""
[roles]
client = ["{WARD}"]
operator = ["{ANNA}"]
auditor = ["{OTTO}"]
[[allow]]
roles = ["client"]
methods = ["ModelService/*", "KeyService/*", "InferenceService/*"]
[[allow]]
identities = ["{WARD}"]
methods = ["AdminService/*"]
[[allow]]
roles = ["operator"]
methods = ["AdminService/*"]
[[allow]]
roles = ["auditor"]
methods = ["AdminService/GetAuditStatus"]
"""
REQUESTS: list[Any] = [
    admin_pb2.ListHeldKeysRequest(),
    admin_pb2.DeleteHeldKeysRequest(owner=WARD, all=True),
    admin_pb2.ListServedModelsRequest(),
    admin_pb2.ReloadModelsRequest(),
    admin_pb2.GetAuditStatusRequest(),
    admin_pb2.ListBudgetsRequest(),
    admin_pb2.ResetBudgetsRequest(identity=WARD),
    admin_pb2.DebitBudgetsRequest(identity=WARD, model="icd", records=1),
]
named = pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)


class Clock:
    """Ahead of the server's start, so that codes are taken; `code` moves it to one that was not."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Running:
    """A server behind a whole gate, its files, and what an administrator holds."""

    def __init__(self, home: Path, clock: Clock) -> None:
        self.home, self._clock, self.models = home, clock, home / "models"
        self.models.mkdir()
        linear_head(8, 3).save(self.models / "icd.head")
        self.pki = certs.make(home / "pki", ["localhost", "127.0.0.1"], "ward-7", 2)
        for name in ("it-anna", "otto"):
            issue = [
                "issue",
                "--ca",
                str(home / "pki"),
                "--role",
                "client",
                "--name",
                name,
                "--out",
                str(home),
                "--days",
                "1",
            ]
            assert certs.run([*issue, "--json"]) == 0
        self.secrets = {who: pyotp.random_base32() for who in (WARD, ANNA, OTTO)}
        otp = home / "otp.toml"
        otp.touch(mode=0o600)
        otp.write_text("".join(f'"{who}" = "{secret}"\n' for who, secret in self.secrets.items()))
        (home / "policy.toml").write_text(POLICY)
        self.gate = GuardedGate(
            GuardSettings(
                CallerSettings(permissions=PermissionSettings(home / "policy.toml", SecondFactorSettings(otp))),
                BudgetSettings(home / "budgets.sqlite", Allowance(total=100), block=4),
                AuditSettings(home / "log", key=home / "audit.key", commit=0.0),
            )
        )
        tls = Tls(self.pki["server.pem"], self.pki["server.key"], self.pki["ca.pem"])
        settings = Settings(
            self.models, "127.0.0.1", 0, tls=tls, blinds_per_key=4, workers=WorkerSettings(count=0), drain=1.0
        )
        self.app = App(settings, self.gate, books=self.gate.books)
        self.address = self.app.start()

    def close(self) -> None:
        self.app.stop()
        self.gate.close()

    def code(self, who: str = ANNA) -> str:
        """One that was not taken yet."""
        self._clock.ahead += 60
        return pyotp.TOTP(self.secrets[who]).at(int(self._clock()))

    def credentials(self, who: str = ANNA) -> Credentials:
        name = who.removeprefix("cn:")
        if who == WARD:
            return Credentials(self.pki["ca.pem"], self.pki["client.key"], self.pki["client.pem"])
        return Credentials(self.pki["ca.pem"], self.home / f"{name}.key", self.home / f"{name}.pem")

    def ask(self, request: Any, code: str | None = None, who: str = ANNA) -> Any:
        with Administrator(self.address, self.credentials(who), 20.0) as administrator:
            return administrator.call(request, self.code(who) if code is None else code)

    def client(self) -> Client:
        pki = self.pki
        return Client(
            self.address,
            model="icd",
            root_certificates=pki["ca.pem"],
            private_key=pki["client.key"],
            certificate_chain=pki["client.pem"],
        )

    def entries(self) -> list[dict[str, Any]]:
        """The audit log's, of calls."""
        assert self.gate._audit is not None
        assert self.gate._audit.flush(10)
        lines = [line for path in sorted((self.home / "log").glob("*.jsonl")) for line in path.read_text().splitlines()]
        return [entry for entry in map(json.loads, lines) if "who" in entry]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guarded, "Permissions", lambda settings: Permissions(settings, clock))
        patch.setattr(versions, "SETTLE_SECONDS", 0.01)
        made = Running(tmp_path_factory.mktemp("admin"), clock)
        yield made
        made.close()


def method(request: Any) -> str:
    return "AdminService/" + type(request).__name__.removesuffix("Request")


def test_every_method_is_tried_here() -> None:
    assert {method(request).partition("/")[2] for request in REQUESTS} == set(METHODS)


# Refusals.


@named
def test_without_a_code_nothing(running: Running, request_: Any) -> None:
    for code in ("", "000000x"):
        with pytest.raises(SecondFactorNeeded):
            running.ask(request_, code)
    entry = running.entries()[-1]
    assert (entry["who"], entry["method"], entry["outcome"]) == (ANNA, method(request_), "SECOND_FACTOR_NEEDED")
    assert "second_factor" not in entry
    running.ask(admin_pb2.GetAuditStatusRequest())  # a code that is right sets wrong ones back


@named
def test_without_a_rule_nothing(running: Running, request_: Any) -> None:
    """A rule for an identity that is neither operator nor auditor is none; an auditor has its own alone."""
    for who in (WARD, OTTO):
        if who == OTTO and isinstance(request_, admin_pb2.GetAuditStatusRequest):
            assert running.ask(request_, who=who).on
            continue
        with pytest.raises(PermissionDenied):
            running.ask(request_, who=who)
        entry = running.entries()[-1]
        assert (entry["who"], entry["method"], entry["outcome"]) == (who, method(request_), "PERMISSION_DENIED")


def test_a_code_is_taken_once(running: Running) -> None:
    code = running.code()
    running.ask(admin_pb2.ListServedModelsRequest(), code)
    for request in REQUESTS:
        with pytest.raises(SecondFactorNeeded, match="taken once"):
            running.ask(request, code)
    assert {entry["outcome"] for entry in running.entries()[-len(REQUESTS) :]} == {"SECOND_FACTOR_NEEDED"}


def test_anothers_code_is_none(running: Running) -> None:
    with pytest.raises(SecondFactorNeeded):
        running.ask(admin_pb2.ListHeldKeysRequest(), running.code(OTTO))


def test_without_a_certificate_nobody(running: Running) -> None:
    with Administrator(running.address, Credentials(running.pki["ca.pem"]), 5.0) as administrator:
        with pytest.raises(SecureInferError):
            administrator.call(admin_pb2.ListHeldKeysRequest(), running.code())


@pytest.mark.parametrize("gated", ["open", "no policy", "no second factor"])
def test_there_are_none_without_policy_and_second_factor(tmp_path: Path, gated: str) -> None:
    """The service is not there at all."""
    linear_head(4, 2).save(tmp_path / "m.head")
    (tmp_path / "policy.toml").write_text(
        '[roles]\noperator = ["*"]\n[[allow]]\nroles = ["operator"]\nmethods = ["*"]\n'
    )
    callers = CallerSettings(permissions=PermissionSettings(tmp_path / "policy.toml"))
    gate = None if gated == "open" else GuardedGate(GuardSettings(callers if gated == "no second factor" else None))
    app = App(
        Settings(tmp_path, "127.0.0.1", 0, insecure=True, blinds_per_key=0, workers=WorkerSettings(count=0), drain=1.0),
        gate,
        books=None if gate is None else gate.books,
    )
    address = app.start()
    try:
        for request in REQUESTS:
            with (
                Administrator(address, Credentials(), 5.0) as administrator,
                pytest.raises(PermissionDenied, match="no policy"),
            ):
                administrator.call(request, "123456")
    finally:
        app.stop()
        if gate is not None:
            gate.close()


def test_a_policy_that_asks_for_no_code_opens_nothing(running: Running, tmp_path: Path) -> None:
    """Where the list of administrative methods was replaced, the service refuses by itself."""
    otp = tmp_path / "otp.toml"
    otp.touch(mode=0o600)
    (tmp_path / "policy.toml").write_text(
        '[roles]\noperator = ["*"]\n[[allow]]\nroles = ["operator"]\nmethods = ["*"]\n'
    )
    permissions = PermissionSettings(tmp_path / "policy.toml", SecondFactorSettings(otp), administrative=("X/*",))
    gate = GuardedGate(GuardSettings(CallerSettings(permissions=permissions)))
    assert gate.books is not None
    with pytest.raises(SecondFactorNeeded, match="asks for none"):
        gate.books.require_second_factor("/secure_infer.v1.AdminService/ListHeldKeys")
    gate.close()


# What they do.


def test_keys_are_summed_up_and_deleted(running: Running) -> None:
    with running.client() as client:
        client.predict(unit_rows(1, 8))
        found = running.ask(admin_pb2.ListHeldKeysRequest())
        assert (found.count, [key.owner for key in found.keys], found.keys[0].model) == (1, [WARD], "icd")
        assert found.size == found.keys[0].size > 1000
        assert len(found.keys[0].key_prefix) == 6
        assert abs(found.keys[0].used - time.time()) < 120
        assert not running.ask(admin_pb2.ListHeldKeysRequest(owner="cn:nobody")).keys
        for wrong in ({"all": True, "key_prefixes": [b"1234"]}, {}, {"key_prefixes": [b"123"]}):
            with pytest.raises(MalformedRequest):
                running.ask(admin_pb2.DeleteHeldKeysRequest(owner=WARD, **wrong))
        other = bytes(4) if found.keys[0].key_prefix[:4] != bytes(4) else b"\1\1\1\1"
        assert running.ask(admin_pb2.DeleteHeldKeysRequest(owner=WARD, key_prefixes=[other])).deleted == 0
        prefix = found.keys[0].key_prefix
        assert running.ask(admin_pb2.DeleteHeldKeysRequest(owner="cn:nobody", key_prefixes=[prefix])).deleted == 0
        assert running.ask(admin_pb2.DeleteHeldKeysRequest(owner=WARD, key_prefixes=[prefix])).deleted == 1
        entry = running.entries()[-1]
        assert (entry["method"], entry["outcome"]) == ("AdminService/DeleteHeldKeys", "ok")
        assert entry["second_factor"]
        assert entry["subject"] == hashlib.sha256(WARD.encode()).hexdigest()
        assert running.ask(admin_pb2.ListHeldKeysRequest()).count == 0
        client.predict(unit_rows(1, 8))  # uploads again by itself
        assert running.ask(admin_pb2.DeleteHeldKeysRequest(owner=WARD, all=True)).deleted == 1


def test_budgets_are_listed_and_reset(running: Running) -> None:
    running.ask(admin_pb2.ResetBudgetsRequest(identity=WARD))
    with running.client() as client:
        client.predict(unit_rows(2, 8))
        found = running.ask(admin_pb2.ListBudgetsRequest())
        (budget,) = found.budgets
        assert (found.on, budget.identity, budget.model) == (True, WARD, "icd")
        until(lambda: running.ask(admin_pb2.ListBudgetsRequest()).budgets[0].total == 2)  # and not what is leased ahead
        assert budget.today == budget.total
        assert budget.total_allowed == 100
        assert not budget.HasField("daily_allowed")
        assert not running.ask(admin_pb2.ListBudgetsRequest(identity=ANNA)).budgets
        with pytest.raises(MalformedRequest):
            running.ask(admin_pb2.ResetBudgetsRequest())
        with pytest.raises(MalformedRequest, match="icd"):
            running.ask(admin_pb2.ResetBudgetsRequest(identity=WARD, model="other"))
        assert running.ask(admin_pb2.ResetBudgetsRequest(identity=WARD, model="icd")).reset == 1
        entry = running.entries()[-1]
        assert (entry["method"], entry["outcome"], entry["model"]) == ("AdminService/ResetBudgets", "ok", "icd")
        assert not running.ask(admin_pb2.ListBudgetsRequest()).budgets
        client.predict(unit_rows(1, 8))


def test_what_a_restored_ledger_does_not_know_of_is_debited(running: Running) -> None:
    running.ask(admin_pb2.ResetBudgetsRequest(identity=WARD))
    (now,) = running.ask(admin_pb2.DebitBudgetsRequest(identity=WARD, model="icd", records=97)).budgets
    assert (now.identity, now.model, now.total, now.today, now.total_allowed) == (WARD, "icd", 97, 0, 100)
    with (
        running.client() as client,
        pytest.raises(BudgetExhausted, match=r"5 records asked, 3 left of the allowance of 100"),
    ):
        client.predict(unit_rows(5, 8))
    again = admin_pb2.DebitBudgetsRequest(identity=WARD, model="icd", records=2, today=True)
    (now,) = running.ask(again).budgets
    assert (now.total, now.today) == (99, 2)
    entry = [each for each in running.entries() if each["method"] == "AdminService/DebitBudgets"][-1]
    assert (entry["outcome"], entry["model"], entry["second_factor"], entry["records"]) == ("ok", "icd", True, 2)
    assert entry["subject"] == hashlib.sha256(WARD.encode()).hexdigest()
    for identity, model, records in (
        ("", "icd", 1),
        (WARD, "other", 1),
        (WARD, "", 1),
        (WARD, "icd", 0),
        (WARD, "icd", 1 << 60),
    ):
        with pytest.raises(MalformedRequest):
            running.ask(admin_pb2.DebitBudgetsRequest(identity=identity, model=model, records=records))
    assert "records" not in running.entries()[-1]  # nothing was debited
    running.ask(admin_pb2.ResetBudgetsRequest(identity=WARD))


def test_the_audit_log_says_where_it_stands(running: Running) -> None:
    assert running.gate._audit is not None
    running.gate._audit.flush(10)
    found = running.ask(admin_pb2.GetAuditStatusRequest())
    assert found.on
    assert not found.failure
    assert found.head.sequence >= found.checkpoint.sequence > 0
    lines = [line for path in sorted((running.home / "log").glob("*.jsonl")) for line in path.read_text().splitlines()]
    hashes = {entry["sequence"]: entry["hash"] for entry in map(json.loads, lines)}
    assert hashes[found.head.sequence] == found.head.hash
    assert hashes[found.checkpoint.sequence] == found.checkpoint.hash


def test_models_are_listed_and_read_anew(running: Running) -> None:
    listed = running.ask(admin_pb2.ListServedModelsRequest()).models
    assert [(model.name, model.ready) for model in listed] == [("icd", True)]
    assert len(listed[0].digest) == 32
    linear_head(8, 2, seed=3).save(running.models / "second.head")
    (running.models / "broken.head").write_bytes(b"x")
    found = running.ask(admin_pb2.ReloadModelsRequest())
    assert (list(found.added), list(found.changed), list(found.removed)) == (["second"], [], [])
    assert list(found.rejected) == ["broken"]
    listed = running.ask(admin_pb2.ListServedModelsRequest()).models
    assert [(model.name, model.ready) for model in listed] == [("broken", False), ("icd", True), ("second", True)]
    assert listed[0].reason
    (running.models / "second.head").unlink()
    (running.models / "broken.head").unlink()
    assert list(running.ask(admin_pb2.ReloadModelsRequest()).removed) == ["second"]


def test_a_party_takes_them_as_well(running: Running) -> None:
    """On threads, without keys of clients."""
    assert running.gate.books is not None
    identity = Identity(running.pki["server.pem"], running.pki["server.key"], running.pki["ca.pem"])
    endpoint = Endpoint(Listening("127.0.0.1", 0, identity), (SERVICE,), threads=2, calls=8, limit=1 << 20)
    models = WatchedModels(running.app.registry, running.app._models)
    calls = AdminCalls(running.gate.books, models)
    found = handlers(calls, running.gate, Watch(endpoint.underway))
    endpoint.services.add_registered_method_handlers(SERVICE, found)
    address = endpoint.start()
    try:
        with Administrator(address, running.credentials(), 20.0) as administrator:
            answer = administrator.call(admin_pb2.ListServedModelsRequest(), running.code())
            assert "icd" in [model.name for model in answer.models if model.ready]
            assert administrator.call(admin_pb2.GetAuditStatusRequest(), running.code()).on
            with pytest.raises(MalformedRequest, match="holds none"):
                administrator.call(admin_pb2.ListHeldKeysRequest(), running.code())
            with pytest.raises(SecondFactorNeeded):
                administrator.call(admin_pb2.GetAuditStatusRequest(), "")
        with Administrator(address, running.credentials(WARD), 20.0) as administrator, pytest.raises(PermissionDenied):
            administrator.call(admin_pb2.ListServedModelsRequest(), running.code(WARD))
    finally:
        endpoint.stop()
    entry = running.entries()[-1]
    assert (entry["who"], entry["outcome"]) == (WARD, "PERMISSION_DENIED")


# The command.


Ran = Callable[..., tuple[int, str]]


@pytest.fixture
def command(running: Running, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Ran:
    from secure_infer_server.commands import admin

    def run(*arguments: str) -> tuple[int, str]:
        (tmp_path / "code").write_text(running.code() + "\n")
        given = running.credentials()
        files = ["--root-certificates", str(given.authority), "--private-key", str(given.key)]
        files += ["--certificate-chain", str(given.certificate), "--code-file", str(tmp_path / "code")]
        status = admin.run([*arguments, "--target", running.address, *files])
        return status, capsys.readouterr().out

    return run


def test_the_command(running: Running, command: Ran) -> None:
    running.ask(admin_pb2.DeleteHeldKeysRequest(owner=WARD, all=True))
    with running.client() as client:
        client.predict(unit_rows(1, 8))
    assert "1 keys" in command("keys", "list")[1]
    (key,) = json.loads(command("keys", "list", "--json")[1])["keys"]
    assert (key["owner"], key["model"], len(key["key_prefix"])) == (WARD, "icd", 12)
    assert command("keys", "delete", "--owner", WARD, "--key", key["key_prefix"]) == (0, "1 deleted\n")
    assert "icd" in command("models", "list")[1]
    assert command("models", "reload") == (0, "nothing changed\n")
    assert "checkpoint" in command("audit", "status")[1]
    assert json.loads(command("audit", "status", "--json")[1])["head"]["sequence"] > 0
    assert "of 100 in all" in command("budgets", "list")[1]
    assert json.loads(command("budgets", "list", "--json")[1])["budgets"][0]["daily_allowed"] is None
    assert command("budgets", "reset", "--identity", WARD) == (0, "1 set back\n")
    debit = ("budgets", "debit", "--identity", WARD, "--model", "icd", "--records", "7")
    version = linear_head(8, 3).digest[:12]
    assert command(*debit) == (0, f"{WARD}  icd {version}  7 of 100 in all, 0 today\n")
    assert json.loads(command(*debit, "--json")[1])["budgets"][0]["total"] == 14
    command("budgets", "reset", "--identity", WARD)


@pytest.mark.parametrize(
    ("flag", "arguments"),
    [
        ("--owner", ["keys", "list"]),
        ("--owner", ["keys", "delete", "--all"]),
        ("--identity", ["budgets", "list"]),
        ("--identity", ["budgets", "reset"]),
        ("--identity", ["budgets", "debit", "--model", "icd", "--records", "3"]),
    ],
)
def test_an_identity_that_nobody_can_have_is_refused(flag: str, arguments: list[str]) -> None:
    """`ward-7` would find nothing and say so of somebody who is not there."""
    from secure_infer_server.commands import admin

    with pytest.raises(SettingsError, match=rf"{flag}: expected an identity that begins with cn:, .*, got 'ward-7'"):
        admin.run([*arguments, flag, "ward-7", "--target", "127.0.0.1:1"])


def test_the_code_is_never_an_argument(running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from secure_infer_server.commands import admin

    base = ["models", "list", "--target", "127.0.0.1:1"]
    with pytest.raises(SystemExit):
        admin.run([*base, "--code", "123456"])
    with pytest.raises(SecureInferError, match="no terminal"):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
        admin.run(base)
    for content in ("", "not digits", "1" * 40):
        (tmp_path / "code").write_text(content)
        with pytest.raises(SecureInferError, match="expected digits"):
            admin.run([*base, "--code-file", str(tmp_path / "code")])


def test_where_the_administrator_asks(running: Running, tmp_path: Path) -> None:
    with pytest.raises(SecureInferError, match="only loopback"):
        Administrator("10.0.0.1:1", Credentials(), 1.0)
    with pytest.raises(SecureInferError, match="only loopback"):
        Administrator("127.0.0.1:1", Credentials(token="t"), 1.0)
    with pytest.raises(SecureInferError, match="go together"):
        Administrator("127.0.0.1:1", Credentials(running.pki["ca.pem"], running.pki["client.key"]), 1.0)
    with (
        Administrator("127.0.0.1:1", Credentials(), 1.0) as nobody,
        pytest.raises(SecureInferError, match="did not answer"),
    ):
        nobody.call(admin_pb2.ListHeldKeysRequest(), "123456")
