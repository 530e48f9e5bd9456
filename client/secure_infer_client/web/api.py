"""What the page asks, checked, and the answers to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secure_infer import __version__
from secure_infer.errors import InvalidInput, SettingsError
from secure_infer_client import samples
from secure_infer_client.explanation.units import UNITS
from secure_infer_client.schemes import SCHEMES
from secure_infer_client.web import story
from secure_infer_client.web.connection import LONGEST_TEXT, MOST_UNITS
from secure_infer_client.web.places import Place

Json = Mapping[str, Any]

OFFERED = 3
"""Packaged texts beside the one with identifiers."""

WITH_IDENTIFIERS = "Jane Miller, born 4 March 1951, MRN 00482913: acute appendicitis with perforation"
"""Nobody's record: it shows what de-identification removes."""


class Api:
    """The page's questions, as `PageServer` passes them on. scheme: the one that is chosen at first."""

    def __init__(self, place: Place, *, scheme: str) -> None:
        self._place, self._scheme = place, scheme
        self._samples = [WITH_IDENTIFIERS, *(sample.text for sample in samples.draw(OFFERED))]
        self._answers = {"state": self._state, "classify": self._classify, "explain": self._explain}

    def __call__(self, name: str, asked: Json) -> Json:
        """Raises SettingsError for a question that there is not or fields that it does not have, and what answering raises."""
        if name not in self._answers:
            raise SettingsError("the page asked something that is not answered here; reload it")
        return self._answers[name](asked)

    def _state(self, asked: Json) -> Json:
        _fields(asked)
        return {
            "version": __version__,
            "scheme": self._scheme,
            "schemes": {name: {"state": s, "sentence": t} for name, (s, t) in self._place.states().items()},
            "models": list(self._place.models),
            "local": self._place.local,
            "samples": self._samples,
            "longest": LONGEST_TEXT,
            "most_units": MOST_UNITS,
        }

    def _classify(self, asked: Json) -> Json:
        scheme, model, text = _fields(asked, "scheme", "model", "text")
        connection = self._place.open(_one_of("scheme", scheme, SCHEMES), model)
        found = connection.ask(text)
        return story.told(connection, found, self._place.plaintext(model))

    def _explain(self, asked: Json) -> Json:
        scheme, model, text, units = _fields(asked, "scheme", "model", "text", "units")
        connection = self._place.open(_one_of("scheme", scheme, SCHEMES), model)
        return story.explained(connection.explain(text, _one_of("units", units, UNITS)))


def _fields(asked: Json, *names: str) -> list[str]:
    """The values of exactly these fields, all of them strings."""
    if set(asked) != set(names) or not all(isinstance(value, str) for value in asked.values()):
        raise InvalidInput(f"expected {', '.join(names) or 'no fields'}, each a string; got other fields")
    return [asked[name] for name in names]


def _one_of(what: str, value: str, expected: Any) -> str:
    if value not in expected:
        raise InvalidInput(f"{what}: expected one of {', '.join(expected)}")
    return value
