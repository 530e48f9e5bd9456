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
import subprocess
import sys
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


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page(), flags=re.DOTALL | re.MULTILINE)


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
    """All of them, one after the other."""
    binaries = home / "bin"
    binaries.mkdir()
    (binaries / "secure-infer").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m secure_infer.cli "$@"\n')
    (binaries / "secure-infer").chmod(0o755)
    # The example's directories are the machine's.
    system = {"/var/lib/secure-infer": home / "lib", "/var/log/secure-infer": home / "varlog"}
    for directory in system.values():
        directory.mkdir()
    program = "set -eu\n" + "".join(blocks("sh"))
    edits = "".join(f"s#{name}#{directory}#;" for name, directory in system.items())
    program = program.replace(
        "secure-infer serve --config", f"sed -i '{edits}' server/server.toml\nsecure-infer serve --config"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC")}
    environment |= {"PATH": f"{binaries}:{os.environ['PATH']}", "SOURCE": str(ROOT)}
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    done = subprocess.run(
        ["bash", "-c", program], cwd=home, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for said in ("on       signatures", "on       callers", "on       budgets", "on       audit", "holds:"):
        assert said in done.stdout, done.stdout
    assert "warning" not in done.stdout
    assert (home / "budgets.backup").exists()


if __name__ == "__main__":
    PAGE.write_text(written(page()), encoding="utf-8")
