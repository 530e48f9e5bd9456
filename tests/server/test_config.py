"""The configuration file: whatever flags say and more, nothing misunderstood, and what `--check-config` says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secure_infer.errors import SettingsError
from secure_infer_server.audit.signing import Signer
from secure_infer_server.budgets import Allowance
from secure_infer_server.callers.policy import ADMINISTRATIVE
from secure_infer_server.commands import certs, serve
from secure_infer_server.config import VARIABLE, Configuration
from shared import linear_head

POLICY = '[roles]\nclient = ["cn:*"]\n[[allow]]\nroles = ["client"]\nmethods = ["*"]\n'
LOCAL = 'models = "models"\nlisten = "127.0.0.1:0"\ninsecure = true\n'
REMOTE = (
    'models = "models"\nlisten = "0.0.0.0:8443"\n'
    'tls_cert = "pki/server.pem"\ntls_key = "pki/server.key"\nclient_ca = "pki/ca.pem"\n'
    'metrics = "127.0.0.1:9100"\n'
)
WHOLE = """
[keys]
directory = "keys"
[callers]
policy = "policy.toml"
[budgets]
path = "budgets.sqlite"
daily = 100
[audit]
directory = "log"
key = "audit.key"
"""

Written = Callable[[str], Path]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("home")
    (path / "models").mkdir()
    linear_head(8, 3).save(path / "models" / "icd.head")
    (path / "policy.toml").write_text(POLICY)
    certs.make(path / "pki", ["localhost"], "ward-7", 30)
    return path


@pytest.fixture
def written(home: Path) -> Written:
    def write(text: str) -> Path:
        (home / "server.toml").write_text(text)
        return home / "server.toml"

    return write


def read(path: Path) -> Configuration:
    return Configuration.read(path, serve._parser())


def checked(path: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, dict[str, Any]]:
    status = serve.run(["--config", str(path), "--check-config", "--json", *flags])
    return status, json.loads(capsys.readouterr().out)


def test_flags_and_tables(written: Written, home: Path) -> None:
    found = read(
        written(
            LOCAL
            + """
smudging = 20
workers = 0
[policies.icd]
smudging = 24
error = 1
[callers]
policy = "policy.toml"
administrative = ["ModelService/ListModels"]
second_factor = { secrets = "/run/otp.toml", attempts = 3 }
[[callers.issuers]]
name = "https://login.example"
audience = "secure-infer"
keys = "login.json"
algorithms = ["ES256"]
[budgets]
path = "budgets.sqlite"
daily = 2000
models.icd = { total = 500 }
[audit]
directory = "log"
checkpoint_seconds = 5
"""
        )
    )
    settings = serve._settings(serve._parser().parse_args([*found.arguments, "--smudging", "22", "--workers", "1"]))
    assert settings.models == home / "models"
    assert (settings.policy.smudging, settings.policy_of("icd").smudging, settings.policy_of("icd").error) == (
        22,
        24,
        1,
    )
    assert settings.workers.count == 1
    guards = found.guards
    assert guards.callers is not None
    assert guards.callers.permissions is not None
    assert guards.callers.permissions.policy == home / "policy.toml"
    assert guards.callers.permissions.administrative == (*ADMINISTRATIVE, "ModelService/ListModels")
    assert guards.callers.permissions.second_factor is not None
    assert guards.callers.permissions.second_factor.secrets == Path("/run/otp.toml")
    (issuer,) = guards.callers.authenticator.issuers
    assert (issuer.keys, issuer.algorithms) == (home / "login.json", ("ES256",))
    assert guards.budgets is not None
    assert (guards.budgets.allowance, guards.budgets.of("icd")) == (Allowance(daily=2000), Allowance(total=500))
    assert guards.audit is not None
    assert (guards.audit.directory, guards.audit.checkpoint_seconds) == (home / "log", 5.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smuging = 20", "the file: unknown key 'smuging'; expected .*smudging"),
        ("smudging = '20'", "smudging: expected a whole number, got '20'"),
        ("insecure = 1", "insecure: expected true or false"),
        ("models = 3", "models: expected a path"),
        ("json = true", "unknown key 'json'"),
        ("policies = 3", "policies: expected a table"),
        ("[keys]\ncapacity = '3'", r"\[keys\]: capacity: expected a whole number"),
        ("[keys]\nexpiry = -1", "expiry has to be positive"),
        ("[keys]\ndirectory = 'a'\nredis = 'b'", "give one of them"),
        ("keys = 'a'", "keys: expected a table"),
        ("keys_directory = 'a'", "unknown key 'keys_directory'"),
        ("check_config = true", "unknown key 'check_config'"),
        ("config = 'x'", "unknown key 'config'"),
        ("[policies.icd]\nsmuding = 3", r"\[policies.icd\]: unknown key 'smuding'"),
        ("[callers]\npolicie = 'x'", r"\[callers\]: unknown key 'policie'; expected administrative, issuers, policy"),
        ("[callers]\nsecond_factor = {secrets = 'x'}", "need a policy"),
        ("[callers]\npolicy = 'p'\nsecond_factor = {}", r"\[callers.second_factor\]: secrets is missing"),
        ("[[callers.issuers]]\nname = 'x'", r"\[\[callers.issuers\]\] number 1: audience is missing"),
        ("[[callers.issuers]]\nname = 'x'\naudience = 'a'\nkeys = 'k'\nalgorithms = 'ES256'", "expected a list"),
        ("[budgets]\ntotal = 3", r"\[budgets\]: path is missing"),
        ("[budgets]\npath = 'b'", "expected total or daily"),
        ("[budgets]\npath = 'b'\ntotal = 0", "at least 1 record"),
        ("[budgets]\npath = 'b'\n[budgets.models.icd]\ntotl = 1", r"\[budgets.models.icd\]: unknown key 'totl'"),
        ("budgets = true", "budgets: expected a table"),
        ("[audit]\nkey = 'k'", "directory is missing"),
        ("[audit]\ndirectory = 'log'\nwhen_full = 'wait'", "unknown key 'when_full'"),
        ("[audit]\ndirectory = 'log'\ncommit = 3", "at most 0.1 seconds"),
        ("models =", "is not TOML"),
    ],
)
def test_what_is_not_understood_is_named(written: Written, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        read(written(text))
    assert "server.toml" in caught.value.message


def test_missing_files_and_flags(home: Path, capsys: pytest.CaptureFixture[str], written: Written) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read(home / "none.toml")
    with pytest.raises(SystemExit):
        serve.run(["--config", str(written("insecure = true")), "--check-config"])
    assert "required: --models" in capsys.readouterr().err


def test_the_environment_names_a_file(
    written: Written, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(written(LOCAL + WHOLE)))
    assert serve.run(["--check-config"]) == 0
    assert "on       budgets: records of a caller for a model: 100 a day" in capsys.readouterr().out


def test_a_whole_configuration(written: Written, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Signer.of(home / "owner.key")
    (home / "owner.pem").write_bytes(Signer.of(home / "owner.key").public)
    status, found = checked(written('model_signers = "owner.pem"\n' + REMOTE + WHOLE), capsys)
    assert status == 2  # the model was not signed
    assert "no file loads" in found["errors"][0]
    status, found = checked(written(REMOTE + WHOLE), capsys)
    assert (status, found["ok"], found["errors"], set(found["off"])) == (0, True, [], {"signatures"})
    assert set(found["on"]) == {"models", "tls", "keys", "callers", "budgets", "audit", "metrics"}
    assert [text for text in found["warnings"] if "TLS 1.2" not in text] == [
        "models are not signed: whoever can write to their directory decides what is served; give model_signers"
    ]
    assert not {"keys", "log", "audit.key", "budgets.sqlite"} & {
        path.name for path in home.iterdir()
    }  # nothing was written


def test_budgets_are_left_off_on_purpose_only(written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = checked(written(REMOTE), capsys)
    assert status == 2
    assert "`budgets = false`" in found["errors"][0]
    with pytest.raises(SettingsError, match="budgets = false"):
        serve.run(["--config", str(written(REMOTE))])
    status, found = checked(written("budgets = false\n" + REMOTE), capsys)
    assert (status, found["errors"]) == (0, [])
    assert found["off"]["budgets"].endswith("(budgets = false)")
    warned = " ".join(found["warnings"])
    for said in ("no policy", "budgets are off", "audit log is off", "not signed", "in memory"):
        assert said in warned


def test_what_is_seldom_meant_is_warned_of(written: Written, capsys: pytest.CaptureFixture[str], home: Path) -> None:
    status, found = checked(written(LOCAL + '[audit]\ndirectory = "log"\nkey = "log/x/audit.key"'), capsys)
    assert status == 2  # the key's directory is not there
    assert any("is in the log's directory" in text for text in found["warnings"])
    assert any("callers are anonymous" in text for text in found["warnings"])
    _, found = checked(written(LOCAL), capsys, "--plaintext-baseline")
    assert any("plaintext baseline" in text for text in found["warnings"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("path =", "models.icf = { total = 3 }\npath ="), "'icf'"),
        (("policy.toml", "none.toml"), "cannot be read"),
        (('key = "audit.key"', 'key = "open.key"'), "make it 0600"),
        (("pki/ca.pem", "pki/none.pem"), "cannot be read"),
        (('client_ca = "pki/ca.pem"', ""), "nothing could vouch"),
        (("tls_cert", "plaintext_baseline = true\ntls_cert"), "--plaintext-baseline answers exactly"),
    ],
)
def test_errors_of_a_configuration(
    written: Written, capsys: pytest.CaptureFixture[str], home: Path, changed: tuple[str, str], message: str
) -> None:
    key = home / "open.key"
    if not key.exists():
        Signer.of(key)
        key.chmod(0o644)
    text = REMOTE + WHOLE
    assert changed[0] in text
    status, found = checked(written(text.replace(*changed)), capsys)
    assert status == 2
    assert message in " ".join(found["errors"])
