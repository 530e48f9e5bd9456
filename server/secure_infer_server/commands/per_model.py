"""Options that hold for all models or for one: VALUE or MODEL=VALUE, repeatable."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from secure_infer.errors import SettingsError


def policies(
    options: argparse.Namespace, common: Any, converters: Mapping[str, tuple[Callable[[str], Any], str]]
) -> tuple[Any, dict[str, Any]]:
    """The policy of all models and those of single ones, from a default.

    common: a dataclass with a field for each option. converters: by option, what reads a value, and what is expected in
    words. Raises SettingsError for a value that is not.
    """
    single: dict[str, Any] = {}
    entries = [(name, *value.rpartition("=")[::2]) for name in converters for value in getattr(options, name)]
    for name, model, value in sorted(entries, key=lambda entry: bool(entry[1])):
        convert, expected = converters[name]
        try:
            change = {name: convert(value)}
        except ValueError:
            raise SettingsError(f"--{name.replace('_', '-')}: expected {expected}, got {value!r}") from None
        if model:
            single[model] = replace(single.get(model, common), **change)
        else:
            common = replace(common, **change)
    return common, single
