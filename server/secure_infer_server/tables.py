"""TOML tables read into frozen dataclasses of settings: every key is known and of its type, or an error names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Settings = TypeVar("Settings")
_WORDS = {int: "a whole number", float: "a number", str: "a string", Path: "a path", bool: "true or false"}


class Wrong(Exception):
    """What is wrong, and where."""


class Table:
    """where: "[budgets]", as errors say it. base: the directory that paths are relative to."""

    def __init__(self, where: str, entries: Mapping[str, Any], base: Path) -> None:
        self.where, self.entries, self._base = where, entries, base

    def only(self, *names: str) -> None:
        """Raise Wrong for a key that is not among them."""
        unknown = sorted(set(self.entries) - set(names))
        if unknown:
            raise Wrong(f"{self.where}: unknown key {unknown[0]!r}; expected {', '.join(sorted(names))}")

    def table(self, name: str) -> Table | None:
        """None where there is none."""
        return self.inner(name) if name in self.entries else None

    def inner(self, name: str) -> Table:
        found, where = self.entries[name], self._path(name)
        if not isinstance(found, dict):
            raise Wrong(f"{where}: expected a table, got {found!r}")
        return Table(f"[{where}]", found, self._base)

    def tables(self, name: str) -> list[Table]:
        """Of [[name]]; empty where there is none."""
        found, where = self.entries.get(name, []), self._path(name)
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise Wrong(f"{where}: expected tables [[{where}]]")
        return [Table(f"[[{where}]] number {n}", each, self._base) for n, each in enumerate(found, 1)]

    def value(self, name: str, kind: Any) -> Any:
        """The value of a key that is there; kind: int, float, str, bool, Path or tuple."""
        found = self.entries[name]
        if kind is Path and type(found) is str and found:
            return self._base / Path(found).expanduser()
        if kind is float and type(found) is int:
            return float(found)
        if kind is tuple:
            if isinstance(found, list) and all(type(each) is str for each in found):
                return tuple(found)
            raise Wrong(f"{self.where}: {name}: expected a list of strings, got {found!r}")
        if type(found) is not kind:
            raise Wrong(f"{self.where}: {name}: expected {_WORDS[kind]}, got {found!r}")
        return found

    def build(self, kind: type[Settings], without: Sequence[str] = (), **given: Any) -> Settings:
        """The dataclass with a field for each key. without: keys read elsewhere. given: fields made of those."""
        hints = get_type_hints(kind)
        names = [each.name for each in fields(kind)]  # type: ignore[arg-type]
        self.only(*names, *without)
        for each in fields(kind):  # type: ignore[arg-type]
            if each.default is MISSING and each.default_factory is MISSING and each.name not in (*self.entries, *given):
                raise Wrong(f"{self.where}: {each.name} is missing")
        found = {
            name: self.value(name, _kind(hints[name])) for name in names if name in self.entries and name not in given
        }
        return kind(**found, **given)

    def _path(self, name: str) -> str:
        return f"{self.where.strip('[]')}.{name}" if self.where.startswith("[") else name


def _kind(hint: Any) -> Any:
    """int of int | None, tuple of tuple[str, ...]."""
    if isinstance(hint, UnionType):
        (hint,) = [each for each in get_args(hint) if each is not NoneType]
    return get_origin(hint) or hint
