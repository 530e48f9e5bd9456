"""`--check-config` looks at the files that a start would take, and at who else can read or change them. It changes none."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secure_infer_server.audit import AuditLog, AuditSettings, Event
from secure_infer_server.budgets import Allowance, Budgets, BudgetSettings
from secure_infer_server.commands import certs, dealer, serve, sign_model
from secure_infer_server.keys.disk import DiskBackend
from secure_infer_server.keys.limits import KeyLimits
from shared import linear_head

SERVER = """
models = "models"
listen = "127.0.0.1:0"
tls_cert = "pki/server.pem"
tls_key = "pki/server.key"
client_ca = "pki/ca.pem"
budgets = false
"""
TABLES = """
[callers]
policy = "policy.toml"
[keys]
directory = "keys"
[audit]
directory = "log"
key = "audit.key"
"""
POLICY = '[roles]\nclient = ["cn:*"]\n[[allow]]\nroles = ["client"]\nmethods = ["*"]\n'

Checked = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made")
    (path / "models").mkdir()
    linear_head(8, 3).save(path / "models" / "icd.head")
    (path / "policy.toml").write_text(POLICY)
    certs.make(path / "pki", ["localhost"], "ward-7", 30)
    certs.make(path / "short", ["localhost"], "ward-7", 2)
    return path


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "home"))


@pytest.fixture
def checked(home: Path, capsys: pytest.CaptureFixture[str]) -> Checked:
    def check(text: str = SERVER + TABLES, command: Any = serve) -> dict[str, Any]:
        (home / "it.toml").write_text(text)
        before = {path: path.lstat().st_mtime_ns for path in home.rglob("*")}
        capsys.readouterr()
        status = command.run(["--config", str(home / "it.toml"), "--check-config", "--json"])
        assert {path: path.lstat().st_mtime_ns for path in home.rglob("*")} == before
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert (status, found["ok"]) == ((2, False) if found["errors"] else (0, True))
        return found

    return check


def holds(texts: list[str], *words: str) -> bool:
    return any(all(word in text for word in words) for text in texts)


def test_nothing_is_said_of_files_as_they_should_be(checked: Checked) -> None:
    assert not holds(checked()["warnings"], "mode")


@pytest.mark.parametrize(
    ("name", "mode", "words"),
    [
        ("pki/server.key", 0o644, "is a secret that every user of this machine can read (mode 644)"),
        ("pki/server.pem", 0o646, "every user of this machine can change"),
        ("pki/ca.pem", 0o666, "every user of this machine can change"),
        ("policy.toml", 0o666, "every user of this machine can change"),
        ("models", 0o777, "every user of this machine can change"),
        ("it.toml", 0o666, "every user of this machine can change"),
    ],
)
def test_what_others_could_read_or_change(checked: Checked, home: Path, name: str, mode: int, words: str) -> None:
    (home / name).touch()
    (home / name).chmod(mode)
    found = checked()
    assert holds(found["warnings"], str(home / name), words)
    assert not found["errors"]


def test_a_certificate_that_ends_soon_and_one_for_clients(checked: Checked, home: Path) -> None:
    found = checked(SERVER.replace("pki/server", "short/server") + TABLES)
    assert holds(found["warnings"], "short/server.pem ends at ", " UTC: renew it")
    found = checked(SERVER.replace("pki/server", "pki/client") + TABLES)
    assert holds(found["errors"], "pki/client.pem is not for servers")


def test_keys_that_a_start_would_not_take(checked: Checked, home: Path) -> None:
    keys = home / "keys"
    DiskBackend(keys, KeyLimits()).close()
    assert not checked()["errors"]
    with sqlite3.connect(keys / "keys.db") as database:
        database.execute("PRAGMA user_version = 77")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    assert holds(checked()["errors"], "has version 77, expected 1")
    (keys / "keys.db").write_bytes(b"not a database" * 500)
    assert holds(checked()["errors"], "keys.db: DatabaseError; move it away")
    keys.chmod(0o755)
    assert holds(checked()["errors"], "to have mode 700, got 755")


def test_a_log_that_a_start_would_not_take(checked: Checked, home: Path) -> None:
    assert holds([checked()["on"]["audit"]], "audit.key is made at the first start")
    log = AuditLog(AuditSettings(home / "log", key=home / "audit.key"))
    for number in range(3):
        log.record(Event(who=f"cn:ward-{number}", method="InferenceService/Infer", outcome="ok"))
    log.close()
    assert not checked()["errors"]
    segment = home / "log" / "audit-00000001.jsonl"
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[:-2]))
    assert holds(checked()["errors"], "whole entries end at ", "its signed head at ")
    segment.write_bytes(b"".join(lines))
    (home / "audit.key").rename(home / "other.key")
    assert holds(checked()["errors"], "audit.key is not there", "put it back, or make a new one: openssl genpkey")
    assert holds(
        checked(SERVER + TABLES.replace('"log"', '"models/icd.head/log"'))["errors"], "audit log: ", "icd.head"
    )


def test_one_wrong_place_does_not_hide_the_others(checked: Checked, home: Path) -> None:
    text = SERVER.replace("budgets = false\n", "") + TABLES + '[budgets]\npath = "nowhere/ledger"\ntotal = 3\n'
    (home / "keys").mkdir(mode=0o755)
    found = checked(text)
    assert holds(found["errors"], "budgets: ", "nowhere is not a directory")
    assert holds(found["errors"], "key store: ")
    assert {"models", "tls"} <= set(found["on"])


def test_signers_that_cannot_be_read_are_told_once_and_serials_need_a_place(checked: Checked, home: Path) -> None:
    found = checked('model_signers = "none.pem"\n' + SERVER + TABLES)
    assert len([text for text in found["errors"] if "none.pem" in text]) == 1
    head, key = str(home / "models" / "icd.head"), str(home / "owner.pem")
    assert sign_model.run([head, "--key", key, "--new-key"]) == 0
    signed = 'model_signers = "owner.pub.pem"\n' + SERVER + TABLES
    assert "across restarts" in checked(signed)["on"]["signatures"]
    assert not checked('model_serials = "serials"\n' + signed)["errors"]
    found = checked('model_serials = "nowhere/serials"\n' + signed)
    assert holds(found["errors"], "--model-serials: ", "nowhere is not a directory")


def test_tokens_and_certificates_are_told_where_they_are_taken(checked: Checked) -> None:
    assert checked()["on"]["callers"].startswith("certificates; 1 rules")
    without = SERVER.replace('client_ca = "pki/ca.pem"\n', "")
    assert holds(checked(without + TABLES)["errors"], "nothing could vouch for anybody")


def test_rules_that_nothing_fits(checked: Checked, home: Path) -> None:
    (home / "otp.toml").touch(mode=0o600)
    (home / "otp.toml").write_text(f'"cn:it-anna" = "{"A" * 32}"\n')
    (home / "policy.toml").write_text(
        '[roles]\nclient = ["cn:*"]\noperator = ["cn:it-anna", "cn:it-berta"]\nauditor = ["jwt:*"]\n'
        '[[allow]]\nroles = ["client"]\nmethods = ["InferenceServce/*", "KeyService/*:others", "grpc.health.v1.Health/Check"]\n'
        '[[allow]]\nroles = ["client"]\nmethods = ["InferenceService/Infer"]\nmodels = ["icd", "icd-10"]\n'
    )
    tables = TABLES.replace('"policy.toml"\n', '"policy.toml"\nsecond_factor = { secrets = "otp.toml" }\n')
    said = [text for text in checked(SERVER + tables)["warnings"] if text.startswith("policy:")]
    assert said == [
        "policy: [[allow]] number 1: no method is called 'InferenceServce/*'",
        "policy: [[allow]] number 2: no served model is called 'icd-10'",
        "policy: operator 'cn:it-berta': no such identity has a secret for one-time codes; each call is refused",
        "policy: auditor 'jwt:*': no such identity has a secret for one-time codes; each call is refused",
    ]


def test_a_dealer_says_the_same_of_its_files(checked: Checked, home: Path) -> None:
    text = 'listen = "127.0.0.1:0"\ntls_cert = "short/dealer.pem"\ntls_key = "short/dealer.key"\nclient_ca = "short/ca.pem"\n'
    (home / "short" / "dealer.key").chmod(0o604)
    found = checked(text + 'metrics = "0.0.0.0:9100"\n', dealer)
    assert holds(found["warnings"], "dealer.key is a secret that every user")
    assert holds(found["warnings"], "dealer.pem ends at ")
    assert holds(found["warnings"], "metrics are plain HTTP at 0.0.0.0:9100")
    assert found["on"]["metrics"] == "http://0.0.0.0:9100/metrics, /live and /ready"
    assert "metrics" in checked(text, dealer)["off"]


def test_parties_and_dealers_want_one_ca(checked: Checked, home: Path) -> None:
    """Between them, whoever has a certificate of another CA is refused; each one's file by itself is fine."""
    (home / "both.pem").write_bytes((home / "pki" / "ca.pem").read_bytes() + (home / "short" / "ca.pem").read_bytes())
    for authority, foreign in (("pki/ca.pem", False), ("short/ca.pem", True), ("both.pem", False)):
        text = f'listen = "127.0.0.1:0"\ntls_cert = "pki/dealer.pem"\ntls_key = "pki/dealer.key"\nclient_ca = "{authority}"\n'
        assert holds(checked(text, dealer)["warnings"], "dealer.pem is of another CA than ", authority) is foreign


def test_places_that_are_something_else(checked: Checked, home: Path) -> None:
    """One error each, and the rest is told all the same."""
    (home / "log" / "audit-00000001.jsonl").mkdir(parents=True)
    found = checked()
    assert holds(found["errors"], "audit-00000001.jsonl is not a file")
    assert {"models", "tls", "callers"} <= set(found["on"])
    shutil.rmtree(home / "log")
    (home / "log").symlink_to(home / "nowhere")
    assert holds(checked()["errors"], "log is a link that leads nowhere")
    (home / "log").unlink()
    (home / "audit.key").symlink_to("audit.key")
    assert holds(checked()["errors"], "audit.key is a link that leads nowhere")
    (home / "keys" / "blobs").mkdir(parents=True, mode=0o755)
    (home / "keys").chmod(0o700)
    assert holds(checked()["errors"], "blobs to have mode 700, got 755")
    (home / "keys" / "blobs").chmod(0o700)
    (home / "keys" / "keys.db").mkdir()
    assert holds(checked()["errors"], "keys.db is not a file")


def test_a_ledger_is_looked_at_and_left_alone(checked: Checked, home: Path, tmp_path: Path) -> None:
    """Also one with what a crash left to be written: playing it in is for the next start."""
    budgets = Budgets(BudgetSettings(tmp_path / "ledger", Allowance(total=9)))
    budgets.charge("cn:ward-7", b"m" * 32, 3)
    for name in ("ledger", "ledger-wal"):
        shutil.copy(tmp_path / name, home)
    budgets.close()
    text = SERVER.replace("budgets = false\n", "") + TABLES + '[budgets]\npath = "ledger"\ntotal = 9\n'
    assert (home / "ledger-wal").stat().st_size
    assert not checked(text)["errors"]
    (home / "ledger").write_bytes(b"not a database" * 500)
    assert holds(checked(text)["errors"], "ledger cannot be opened as an SQLite file")


def test_models_that_do_not_load_make_no_rule_wrong(checked: Checked, home: Path) -> None:
    (home / "models" / "icd.head").write_bytes(b"no head")
    (home / "policy.toml").write_text(POLICY + 'models = ["icd"]\n')
    found = checked()
    assert found["errors"]
    assert not holds(found["warnings"], "no served model")


def test_rules_there_are_none_of_and_an_authority_that_is_none(checked: Checked, home: Path) -> None:
    (home / "policy.toml").write_text('[roles]\nclient = ["cn:*"]\n')
    found = checked(SERVER.replace("pki/ca.pem", "pki/server.pem") + TABLES)
    assert holds(found["warnings"], "policy.toml holds no rule: nobody may call anything")
    assert holds(found["warnings"], "pki/server.pem holds CN=localhost, which is no CA")


def test_a_directory_whose_files_anybody_could_replace(checked: Checked, home: Path) -> None:
    (home / "pki").chmod(0o777)
    assert holds(checked()["warnings"], "every user of this machine can change", f"{home / 'pki'} (mode 777)")


def test_an_allowance_that_no_batch_fits(checked: Checked, home: Path) -> None:
    linear_head(384, 10).save(home / "models" / "wide.head")
    budgets = '[budgets]\npath = "ledger"\ndaily = 2000\nmodels.icd = { daily = 100000 }\n'
    text = SERVER.replace("budgets = false\n", "") + TABLES + budgets
    said = checked(text)["on"]["budgets"]
    assert "; no batches of wide, of which the smallest counts as 2048 records: cohorts are asked row by row" in said
    assert "batches of icd" not in said
    assert "ledger is made at the start: everybody begins at nothing" in said
