"""Flags from the line, the environment and the file, in that order, for every command that serves; `--check-config` of each."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secure_infer.errors import SettingsError
from secure_infer_server import config, flags
from secure_infer_server.callers import transport
from secure_infer_server.commands import certs, dealer, party, serve
from secure_infer_server.keys.settings import KeySettings
from shared import linear_head

COMMANDS: dict[str, Any] = {"serve": serve, "party": party, "dealer": dealer}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("home")
    (path / "models").mkdir()
    linear_head(8, 3).save(path / "models" / "icd.head")
    certs.make(path / "pki", ["localhost"], "ward-7", 30)
    return path


Written = Callable[[str], Path]


@pytest.fixture
def written(home: Path) -> Written:
    def write(text: str) -> Path:
        (home / "file.toml").write_text(text)
        return home / "file.toml"

    return write


# Every flag, in every place.


def value_of(action: argparse.Action) -> tuple[object, str]:
    """A value in TOML's types, and as the environment has it."""
    if action.nargs == 0:
        return not action.default, str(not action.default).lower()
    if action.choices:
        first = list(action.choices)[-1]
        return first, str(first)
    if action.type in (int, float):
        return 7, "7"
    return "x", "x"


def required(parser: argparse.ArgumentParser, besides: argparse.Action) -> list[str]:
    found = []
    for action in parser._actions:
        if action.required and action is not besides:
            found.append(f"{action.option_strings[0]}={value_of(action)[1]}")
    return found


def flags_of(command: str) -> list[argparse.Action]:
    return [each for each in flags.settable(COMMANDS[command]._parser()) if each.dest != "config"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_can_be_set_by_file_environment_and_line(command: str, written: Written) -> None:
    parser = COMMANDS[command]._parser()
    for action in flags.settable(parser):
        if action.dest == "config":
            continue
        in_file, in_environment = value_of(action)
        wanted = [in_environment] if isinstance(action.default, list) else None
        rest = required(parser, action)
        by_environment = flags.of_environment(parser, {flags.variable(action): in_environment})
        found = {"environment": parser.parse_args([*rest, *by_environment])}
        if action.dest not in config._OF_TABLES:
            table = flags.read_file(written(f"{action.dest} = {json.dumps(in_file)}"))
            found["file"] = parser.parse_args([*rest, *flags.of_file(table, parser, {}, (), config._OF_TABLES)])
        for place, chosen in found.items():
            value = getattr(chosen, action.dest)
            expected = wanted or (written("").parent / "x" if isinstance(value, Path) and place == "file" else in_file)
            assert value == (Path("x") if isinstance(value, Path) and place == "environment" else expected), action.dest


@pytest.mark.parametrize("command", COMMANDS)
def test_switches_can_be_switched_off_again(command: str) -> None:
    for action in flags_of(command):
        if action.nargs == 0:
            assert any(flag.startswith("--no-") for flag in action.option_strings), action.dest


@pytest.mark.parametrize("command", COMMANDS)
def test_help_states_the_rule(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        COMMANDS[command].run(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert flags.RULE in said
    assert "SECURE_INFER_CONFIG" in said


# Which place wins.


def chosen(written: Written, file: str, environment: dict[str, str], *line: str) -> argparse.Namespace:
    arguments = ["--config", str(written('models = "m"\nlisten = "127.0.0.1:0"\n' + file)), *line]
    return config.options(serve._parser(), arguments, environment)[0]


def test_the_line_wins_over_the_environment_and_that_over_the_file(written: Written) -> None:
    file, environment = (
        "queue = 1\ninsecure = true\nworkers = 1\n",
        {"SECURE_INFER_QUEUE": "2", "SECURE_INFER_INSECURE": "false"},
    )
    found = chosen(written, file, environment, "--queue", "3")
    assert (found.queue, found.insecure, found.workers, found.worker_memory) == (3, False, 1, 2048)
    assert chosen(written, file, environment).queue == 2
    assert chosen(written, file, environment, "--insecure").insecure
    assert chosen(written, file, {"SECURE_INFER_QUEUE": " "}).queue == 1  # empty is not set


def test_repeated_flags_add_up_and_the_last_word_counts(written: Written) -> None:
    file = "smudging = 20\n[policies.a]\nsmudging = 24\n[policies.b]\nsmudging = 25\n"
    found = chosen(written, file, {"SECURE_INFER_SMUDGING": "21 b=26"}, "--smudging", "b=27")
    settings = serve._settings(argparse.Namespace(**(vars(found) | {"insecure": True})))
    assert [settings.policy_of(name).smudging for name in ("x", "a", "b")] == [21, 24, 27]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SECURE_INFER_QUEUE": "many"}, "SECURE_INFER_QUEUE: expected a whole number, got 'many'"),
        ({"SECURE_INFER_DRAIN": "long"}, "SECURE_INFER_DRAIN: expected a number"),
        ({"SECURE_INFER_INSECURE": "yes"}, "SECURE_INFER_INSECURE: expected true or false"),
    ],
)
def test_what_the_environment_gets_wrong_is_named(written: Written, variables: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        chosen(written, "", variables)


def test_variables_that_nothing_reads_are_told_of() -> None:
    environment = {"SECURE_INFER_SMUGING": "3", "SECURE_INFER_QUEUE": "3", "SECURE_INFER_CONFIG": "x", "PATH": "x"}
    assert flags.unread(serve._parser(), environment) == ["SECURE_INFER_SMUGING"]


# [keys].


KEYS = """
[keys]
directory = "keys"
capacity = 1000000
owner_bytes = 500000
owner_keys = 4
expiry = 3600
upload_bytes = 400000
owner_upload_bytes = 300000
upload_seconds = 60
prefix = "p"
"""


def kept(written: Written, text: str, environment: dict[str, str], *line: str) -> KeySettings:
    file = written('models = "m"\nlisten = "127.0.0.1:0"\ninsecure = true\n' + text)
    found, configuration = config.options(serve._parser(), ["--config", str(file), *line], environment)
    return serve._settings(found, configuration).keys


def test_keys_have_a_table(written: Written, home: Path) -> None:
    keys = kept(written, KEYS, {})
    assert (keys.directory, keys.redis, keys.prefix) == (home / "keys", None, "p")
    limits = keys.limits(1 << 30, told_apart=True, in_memory=False)
    assert (limits.capacity, limits.owner_bytes, limits.owner_keys, limits.expiry) == (1000000, 500000, 4, 3600.0)
    assert (limits.upload_bytes, limits.owner_upload_bytes, limits.upload_seconds) == (400000, 300000, 60.0)


def test_another_place_for_keys_leaves_their_limits(written: Written) -> None:
    moved = kept(written, KEYS, {"SECURE_INFER_KEYS": "/elsewhere"})
    assert (moved.directory, moved.owner_keys) == (Path("/elsewhere"), 4)
    moved = kept(written, KEYS, {}, "--keys-redis", "url")
    assert (moved.directory, moved.redis, moved.owner_keys) == (None, Path("url"), 4)
    with pytest.raises(SettingsError, match="give one of them"):
        kept(written, KEYS, {"SECURE_INFER_KEYS": "a"}, "--keys-redis", "b")


def test_limits_that_do_not_fit_are_found(written: Written, capsys: pytest.CaptureFixture[str], home: Path) -> None:
    text = 'models = "models"\nlisten = "127.0.0.1:0"\ninsecure = true\n'
    for keys, message in (
        ("capacity = 10\nowner_bytes = 20", "owner_bytes is at most capacity"),
        ('directory = "models/icd.head/keys"', "not a directory"),
        ('redis = "nowhere"', "cannot be read"),
    ):
        assert serve.run(["--config", str(written(f"{text}[keys]\n{keys}\n")), "--check-config"]) == 2
        assert message in capsys.readouterr().out
    assert serve.run(["--config", str(written(f'{text}[keys]\ndirectory = "keys"\n')), "--check-config"]) == 0
    assert f"on       keys: on disk in {home / 'keys'}: 4096 MiB in all, 30 days unused" in capsys.readouterr().out
    assert not (home / "keys").exists()


# Parties and dealers.


PARTY = """
id = 0
models = "models"
listen = "0.0.0.0:7443"
peer = "0.0.0.0:7444"
dealer = "dealer.example:7000"
tls_cert = "pki/party0.pem"
tls_key = "pki/party0.key"
client_ca = "pki/ca.pem"
"""


def checked(command: str, path: Path, capsys: pytest.CaptureFixture[str], *line: str) -> tuple[int, dict[str, Any]]:
    status = COMMANDS[command].run(["--config", str(path), "--check-config", "--json", *line])
    return status, json.loads(capsys.readouterr().out)


def test_a_party_can_be_checked(written: Written, capsys: pytest.CaptureFixture[str], home: Path) -> None:
    status, found = checked("party", written(PARTY), capsys)
    assert status == 2
    assert "budgets = false" in found["errors"][0]
    status, found = checked("party", written("budgets = false\n" + PARTY), capsys)
    assert (status, found["ok"], found["errors"]) == (0, True, [])
    assert set(found["on"]) == {"models", "tls", "links"}
    assert found["on"]["links"] == "awaits party 1 at 0.0.0.0:7444, its dealer at dealer.example:7000"
    assert set(found["off"]) == {"callers", "budgets", "audit", "signatures", "metrics"}
    for said in ("no policy", "budgets are off", "audit log is off", "not signed", "metrics are off"):
        assert any(said in text for text in found["warnings"])
    with pytest.raises(SettingsError, match="role party:1"):
        COMMANDS["party"].run(["--config", str(written(PARTY)), "--check-config", "--id", "1"])
    with pytest.raises(SettingsError, match="unknown key 'keys'"):
        checked("party", written(PARTY + KEYS), capsys)


def test_a_dealer_can_be_checked(
    written: Written, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(transport.VARIABLE, transport.SUITE)
    tls = 'tls_cert = "pki/dealer.pem"\ntls_key = "pki/dealer.key"\nclient_ca = "pki/ca.pem"\n'
    status, found = checked("dealer", written('listen = "0.0.0.0:7000"\n' + tls), capsys)
    assert (status, set(found["on"]), set(found["off"])) == (0, {"listening", "tls"}, {"metrics"})
    assert found["warnings"] == ["metrics are off: nobody is told when something is wrong; give metrics"]
    tls += 'metrics = "127.0.0.1:9100"\n'
    status, found = checked("dealer", written('listen = "0.0.0.0:7000"\n' + tls), capsys)
    assert (status, set(found["on"]), found["warnings"]) == (0, {"listening", "tls", "metrics"}, [])
    monkeypatch.setenv("SECURE_INFER_LISTEN", "0.0.0.0:7001")
    monkeypatch.setenv("SECURE_INFER_DEALER", "x")
    status, found = checked("dealer", written('listen = "0.0.0.0:7000"\n' + tls), capsys)
    assert found["on"]["listening"] == "at 0.0.0.0:7001"
    assert "SECURE_INFER_DEALER is set" in found["warnings"][0]
    with pytest.raises(SettingsError, match="unknown key 'budgets'"):
        checked("dealer", written("budgets = false\n" + tls), capsys)
