"""Flags from three places: the command line wins over the environment, the environment over the file, the file over defaults.

    --worker-memory 512            SECURE_INFER_WORKER_MEMORY=512            worker_memory = 512

The file is TOML; a path in it is relative to it. A key that is not known is an error.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from secure_infer.errors import SettingsError
from secure_infer_server.tables import Table, Wrong

PREFIX = "SECURE_INFER_"
RULE = (
    "Every flag but --check-config and --json has an environment variable: SECURE_INFER_ and its name in capitals, _ for - "
    "(--tls-cert: SECURE_INFER_TLS_CERT). Switches are true or false there; a flag that repeats takes its values with spaces "
    "between; an empty variable is none. The line wins over the environment, the environment over --config's file, the file "
    "over defaults."
)
CONFIG = PREFIX + "CONFIG"
LINE_ALONE = ("help", "check_config", "json")
"""Destinations of flags that say what to do now, not how to serve."""

Found = TypeVar("Found")
Arguments = list[str]


def settable(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The flags that environments may set, and files but for --config."""
    return (each for each in parser._actions if each.option_strings and each.dest not in LINE_ALONE)


def variable(action: argparse.Action) -> str:
    """The name of a flag's variable."""
    return PREFIX + action.option_strings[0].removeprefix("--").replace("-", "_").upper()


def unread(parser: argparse.ArgumentParser, environment: Mapping[str, str], *also: str) -> list[str]:
    """Variables with our prefix that no flag reads: misspelt, or another command's. also: what is read elsewhere."""
    known = {*also, *(variable(action) for action in settable(parser))}
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)


def options(
    parser: argparse.ArgumentParser,
    arguments: Arguments,
    environment: Mapping[str, str],
    read: Callable[[Path], tuple[Arguments, Found]],
) -> tuple[argparse.Namespace, Found | None]:
    """All flags, and what else the file holds that `--config` or the environment names; None without one.

    read: gives the file's flags as they would be on the line, and the rest. Raises SettingsError.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    named = first.parse_known_args(arguments)[0].config
    path = named or environment.get(CONFIG)
    said, found = read(Path(path)) if path else ([], None)
    chosen = parser.parse_args([*said, *of_environment(parser, environment), *arguments])
    if chosen.config != named:  # abbreviated: it would have been read by nobody
        parser.error("--config: write it out in full")
    return chosen, found


def of_environment(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> Arguments:
    """What the environment says, as it would be on the line. Raises SettingsError, which names the variable."""
    found = []
    for action in settable(parser):
        name, flag = variable(action), action.option_strings[0]
        text = environment.get(name, "").strip()
        if not text or name == CONFIG:
            continue
        if action.nargs == 0:
            if text.lower() not in ("true", "false"):
                raise SettingsError(f"environment: {name}: expected true or false, got {text[:100]!r}")
            found.append(_switch(action, text.lower() == "true"))
            continue
        for value in text.split() if isinstance(action.default, list) else [text]:
            _require_number(name, action, value)
            found.append(f"{flag}={value}")
    return found


def read_file(path: Path) -> Table:
    """A TOML file; raises SettingsError."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"configuration: {path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"configuration: {path} is not TOML: {error}") from None
    return Table("the file", data, path.resolve().parent)


def of_file(
    table: Table,
    parser: argparse.ArgumentParser,
    kinds: Mapping[str, type],
    sections: tuple[str, ...] = (),
    elsewhere: tuple[str, ...] = (),
) -> Arguments:
    """What the file says in flags, as it would be on the line; raises Wrong for any other key that is not among `sections`.

    kinds: types of values, where the flag's own is not it. elsewhere: destinations of flags that a table sets.
    """
    actions = {each.dest: each for each in settable(parser) if each.dest not in ("config", *elsewhere)}
    table.only(*actions, *sections)
    found = []
    for name in table.entries:
        action = actions.get(name)
        if action is None:
            continue
        if action.nargs == 0:
            found.append(_switch(action, table.value(name, bool)))
            continue
        own = action.type if action.type in (Path, int, float) else str
        flag = action.option_strings[0]
        if isinstance(action.default, list) and isinstance(table.entries[name], list):
            found += [f"{flag}={value}" for value in table.value(name, tuple)]
        else:
            found.append(f"{flag}={table.value(name, kinds.get(name, own))}")
    return found


def alone(parser: argparse.ArgumentParser, path: Path) -> tuple[Arguments, None]:
    """A `read` for files that hold flags and nothing else."""
    table = read_file(path)
    try:
        return of_file(table, parser, {}), None
    except Wrong as wrong:
        raise SettingsError(f"configuration: {path}: {wrong}") from None


def _switch(action: argparse.Action, value: bool) -> str:
    """A flag that takes no value (a `BooleanOptionalAction`), as it would be on the line."""
    return next(flag for flag in action.option_strings if flag.startswith("--no-") is not value)


def _require_number(name: str, action: argparse.Action, value: str) -> None:
    if action.type not in (int, float):
        return
    try:
        float(value) if action.type is float else int(value)
    except ValueError:
        expected = "a number" if action.type is float else "a whole number"
        raise SettingsError(f"environment: {name}: expected {expected}, got {value[:100]!r}") from None
