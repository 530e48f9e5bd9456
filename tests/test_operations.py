"""docs/operations.md: its commands run, its arithmetic holds, its tables are the program's.

`python tests/test_operations.py` writes the tables anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from secure_infer.cli import SUMMARIES
from secure_infer_benchmarks import extraction
from secure_infer_server import flags
from secure_infer_server.audit.log import AuditLog
from secure_infer_server.audit.settings import AuditSettings
from secure_infer_server.budgets import Allowance, BudgetSettings
from secure_infer_server.budgets.ledger import Ledger
from secure_infer_server.callers.second_factor import SecondFactorSettings
from secure_infer_server.callers.tokens import Issuer
from secure_infer_server.commands import admin, dealer, party, serve
from secure_infer_server.keys.limits import KeyLimits
from secure_infer_server.keys.settings import KeySettings

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "operations.md"
COMMANDS: dict[str, Any] = {"serve": serve, "party": party, "dealer": dealer}
TABLES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "keys": (KeySettings, ()),
    "callers.second_factor": (SecondFactorSettings, ()),
    "callers.issuers": (Issuer, ()),
    "budgets": (BudgetSettings, ("allowance",)),
    "audit": (AuditSettings, ("when_full", "wait")),
}


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def blocks(language: str, text: str | None = None) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page() if text is None else text, flags=re.DOTALL | re.MULTILINE)


def parts() -> tuple[str, str]:
    """The walk of three operators, which is one of its own, and the rest of the page."""
    before, heading, rest = page().partition("\n## Two parties and a dealer\n")
    walk, following, after = rest.partition("\n## ")
    assert heading
    assert following
    return walk, before + following + after


def test_stolen_models_agree_as_measured() -> None:
    held = json.loads((ROOT / "benchmarks" / "results" / "extraction.json").read_text())
    assert extraction.table(held["suites"]["extraction"]) in blocks("text")


# Tables.


def flag_table() -> str:
    found: dict[str, dict[str, argparse.Action]] = {}
    for command, module in COMMANDS.items():
        for action in flags.settable(module._parser()):
            found.setdefault(action.option_strings[0], {})[command] = action
    lines = ["| flag | of | default |", "| --- | --- | --- |"]
    for flag, actions in sorted(found.items()):
        of = "all" if len(actions) == len(COMMANDS) else ", ".join(actions)
        (text,) = {default(action) for action in actions.values()}  # the same for every command
        lines.append(f"| `{flag}{value(next(iter(actions.values())))}` | {of} | {text} |")
    return "\n".join(lines)


def value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    return " " + (" or ".join(map(str, action.choices)) if action.choices else str(action.metavar))


def default(action: argparse.Action) -> str:
    if action.required:
        return "needed"
    if action.dest == "workers":
        return "one a core"
    return shown(action.default)


def table_table() -> str:
    rows = [("callers", "policy", "–"), ("callers", "administrative", "–")]
    for table, (kind, without) in TABLES.items():
        rows += [
            (table, each.name, field_default(kind, each))
            for each in dataclasses.fields(kind)
            if each.name not in without
        ]
        rows += [(table, name, shown(None)) for name in ("total", "daily") if kind is BudgetSettings]
    lines = ["| table | key | default |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| `[{table}]` | `{key}` | {text} |" for table, key, text in rows)])


def field_default(kind: Any, each: dataclasses.Field[Any]) -> str:
    if each.default is not dataclasses.MISSING:
        found = each.default
    elif each.default_factory is not dataclasses.MISSING:
        found = each.default_factory()
    else:
        return "needed"
    if kind is KeySettings and found is None and each.name in KeyLimits.__dataclass_fields__:
        return f"{shown(getattr(KeyLimits, each.name))} *"
    return shown(found)


def shown(found: object) -> str:
    if isinstance(found, bool):
        return "on" if found else "off"
    if isinstance(found, float):
        return f"{found:.15g}"
    if isinstance(found, tuple):
        return ", ".join(map(str, found))
    return "–" if found is None or found in ([], {}) else str(found)


def written(text: str) -> str:
    """The page with its tables as they should be."""
    for name, table in (("flags", flag_table()), ("tables", table_table())):
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, t=table: f"{m[1]}{t}\n{m[2]}", text, flags=re.DOTALL
        )  # type: ignore[misc]
    return text


def test_tables_are_the_programs() -> None:
    assert page() == written(page()), "run: python tests/test_operations.py"


def test_variables_and_keys_follow_the_rule() -> None:
    actions = {action.option_strings[0]: action for action in flags.settable(serve._parser())}
    for line in re.findall(r"^\| `(--[^`]*)` \| `(SECURE_INFER_[A-Z_]+)", page(), flags=re.MULTILINE):
        flag = line[0].split()[0].replace("--no-", "--")
        assert flags.variable(actions[flag]) == line[1]


def test_commands_and_files_exist() -> None:
    mentioned = set(re.findall(r"secure-infer ([a-z][a-z-]*)", page()))
    assert mentioned <= set(SUMMARIES)
    for words in re.findall(r"`secure-infer admin ([^`]*)`", page()):
        admin._parser().parse_args([*words.split(), "--target", "a:1"])
    for link in re.findall(r"\]\(([^)#]+)\)", page()):
        assert (PAGE.parent / link).exists(), link


def test_metrics_exist() -> None:
    observability = PAGE.parent / "observability.md"
    if not observability.exists():
        pytest.skip("docs/observability.md is not written")
    for name in set(re.findall(r"`secure_infer_([a-z_]+)`", page())):
        listed = name.removesuffix("_total")
        assert f"`{listed}`" in observability.read_text(encoding="utf-8"), name


# Arithmetic and commands.


def test_the_example_of_sizing_takes_measured_figures() -> None:
    report = json.loads((ROOT / "benchmarks" / "results" / "full.json").read_bytes())
    (row,) = (row for row in report["suites"]["cost"]["rows"] if row["id"] == "icd10-chapter/ckks")
    sizes = ", ".join(f"{row['counts'][name]:_}" for name in ("bytes_up", "bytes_down", "key_bytes"))
    told = f"= {row['figures']['server_ms']['median']:.3g}e-3, {sizes}, 36e6"
    assert told in blocks("python")[0]


def test_the_example_of_sizing_is_computed() -> None:
    (program,), (_, result, *_) = blocks("python"), blocks("text")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == result


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An operator's machine: models, a ledger and a log that were written to."""
    (tmp_path / "models").mkdir()
    shutil.copy(ROOT / "secure_infer" / "models" / "icd10-chapter-linear.head", tmp_path / "models")
    Ledger(tmp_path / "budgets.sqlite").lease(("cn:ward-7", bytes(32)), Allowance(total=9), 1, 1, 0)
    AuditLog(AuditSettings(tmp_path / "log", key=tmp_path / "audit.key")).close()
    shutil.copy(tmp_path / "log" / "audit.pub", tmp_path)
    return tmp_path


def test_the_commands_run(home: Path) -> None:
    """All of them, one after the other, but for those of two parties."""
    # The example's directories are the machine's.
    system = {"/var/lib/secure-infer": home / "lib", "/var/log/secure-infer": home / "varlog"}
    for directory in system.values():
        directory.mkdir()
    edits = "".join(f"s#{name}#{directory}#;" for name, directory in system.items())
    program = "".join(blocks("sh", parts()[1])).replace(
        "secure-infer serve --config", f"sed -i '{edits}' server/server.toml\nsecure-infer serve --config"
    )
    said = run(program, home, ROOT)
    for each in ("on       signatures", "on       callers", "on       budgets", "on       audit", "holds:"):
        assert each in said, said
    assert "warning" not in said
    assert (home / "budgets.backup").exists()


def test_the_walk_of_two_parties_runs(home: Path) -> None:
    """Three operators and a client, as they are told to; on one machine, so with addresses and directories of its own."""
    hosts = {
        name: f"localhost:{port}"
        for name, port in zip(
            ("party-0.example:7443", "party-1.example:7443", "party-0.example:7444", "dealer.example:7000"),
            free_ports(4),
            strict=True,
        )
    }
    clients_0, clients_1, link, dealing = (found.replace("localhost", "127.0.0.1") for found in hosts.values())
    listening = {
        "party-0": {"0.0.0.0:7443": clients_0, "0.0.0.0:7444": link},
        "party-1": {"0.0.0.0:7443": clients_1},
        "dealer": {"0.0.0.0:7000": dealing},
    }
    examples = home / "source" / "server" / "deploy" / "config"
    shutil.copytree(ROOT / "server" / "deploy" / "config", examples)
    for name, addresses in listening.items():
        for directory in ("lib", "log"):
            (home / "var" / name / directory).mkdir(parents=True)
        text = (examples / f"{name}.toml").read_text()
        for written, meant in {**addresses, "127.0.0.1:9100": "127.0.0.1:0"}.items():
            assert written in text
            text = text.replace(written, meant)
        text = re.sub(r"/var/(lib|log)/secure-infer", rf"{home}/var/{name}/\1", text)
        (examples / f"{name}.toml").write_text(text)
    program = "".join(blocks("sh", parts()[0]))
    for name, found in hosts.items():
        assert name in program
        program = program.replace(name, found)
    said = run(re.sub(r"[a-z0-9-]+\.example\b", "localhost", program), home, home / "source")
    for each in (
        "half of party         0",
        "half of party         1",
        "awaits party 1",
        "finds party 0",
        "on       listening",
    ):
        assert each in said, said
    assert said.count("signature verified    True") == 2
    assert not re.findall(r"^(?:warning  |error    |off      |FAIL).*", said, flags=re.MULTILINE)
    assert "\nall well\n" in said
    assert re.search(r"Acute appendicitis with perforation +\d.*XI Digestive system", said)
    assert re.search(r"Fracture of the left femur +\d.*XIX Injury and poisoning", said)
    assert not [name for name in listening if list((home / name).rglob("*.head"))]
    logs = {name: (home / f"{name}.log").read_text() for name in listening}
    assert "epoch" in logs["dealer"]
    for each in ("connected to the dealer", "4 of 4 lanes are up"):
        assert each in logs["party-0"]
        assert each in logs["party-1"]


def run(program: str, home: Path, source: Path) -> str:
    """What a page's shell prints, in `home`, with the commands and the project that the page takes for granted."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    binaries = home / "bin"
    binaries.mkdir()
    (binaries / "secure-infer").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m secure_infer.cli "$@"\n')
    (binaries / "secure-infer").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC")}
    environment |= {"PATH": f"{binaries}:{os.environ['PATH']}", "SOURCE": str(source)}
    # A group of its own, which ends with whatever the page left running.
    started = subprocess.Popen(
        ["bash", "-c", f"set -eu\n{program}"],
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = started.communicate(timeout=240)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    assert started.returncode == 0, out + err
    return out


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in held]


if __name__ == "__main__":
    PAGE.write_text(written(page()), encoding="utf-8")
