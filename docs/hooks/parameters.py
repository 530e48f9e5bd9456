"""A griffe extension: docstrings here say "name: what it is." in running text, and the reference shows each on a line of its own.

    "Rows of x. x: features (B, d). bound: largest |x_i|.\n\nRaises InvalidInput."
    -> "Rows of x.\n\n- **x**: features (B, d).\n- **bound**: largest |x_i|.\n\nRaises InvalidInput."

Names count where they are the object's own parameters or attributes and begin a sentence.
"""

from __future__ import annotations

import re
from typing import Any

import griffe


class Parameters(griffe.Extension):
    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        _lay_out(func, [one.name for one in func.parameters])

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        made = cls.members.get("__init__")
        parameters = [one.name for one in made.parameters] if isinstance(made, griffe.Function) else []
        _lay_out(cls, [*parameters, *(name for name, member in cls.members.items() if member.is_attribute)])


def _lay_out(owner: griffe.Object, names: list[str]) -> None:
    if owner.docstring is not None and names:
        owner.docstring.value = listed(owner.docstring.value, names)


def listed(text: str, names: list[str]) -> str:
    one = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    head = re.compile(rf"(?:^|(?<=[.;?)] )|(?<=[.;?)]\n))((?:{one})(?:(?:, | and )(?:{one}))*): ")
    return "\n\n".join(_paragraph(paragraph, head) for paragraph in re.split(r"\n\s*\n", text))


def _paragraph(text: str, head: re.Pattern[str]) -> str:
    before, *rest = head.split(text)
    if not rest:
        return text
    items = []
    after = ""
    for names, said in zip(rest[::2], rest[1::2], strict=True):
        said, raises, what = said.partition("\nRaises ")
        after += f"{raises}{what}"
        items.append(f"- **{names}**: {' '.join(said.split())}")
    return "\n\n".join(part for part in (before.strip(), "\n".join(items), after.strip()) if part)
