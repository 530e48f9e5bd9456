"""One model at one place: a client, and recorders on the sockets it uses, as far as these can be read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import InvalidInput, SecureInferError, SettingsError
from secure_infer.heads import ModelSpec
from secure_infer_client import samples
from secure_infer_client.client import Client
from secure_infer_client.explanation import Explanation
from secure_infer_client.explanation.units import split
from secure_infer_client.prediction import CallStats, Prediction
from secure_infer_client.recorder import Recorder
from secure_infer_client.text.deidentify import Deidentified, deidentify

MakeClient = Callable[[Sequence[str]], Client]
"""Targets -> a client of them."""

LONGEST_TEXT = 20_000
"""Characters."""
MOST_UNITS = 96
"""Of an explanation: each is a query of its own."""
_PLAIN_CALLS = 3


@dataclass(frozen=True)
class Passed:
    """Bytes that passed one socket during a call."""

    up: bytes = field(repr=False)
    down: bytes = field(repr=False)


@dataclass(frozen=True)
class Plaintext:
    """What the same model costs in the clear at the same server: milliseconds of a call, and bytes that passed the socket."""

    ms: float
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True)
class Asked:
    """A call and everything that is shown of it. embedding (d,); passed: by target, empty where nothing could be read."""

    text: str = field(repr=False)
    cleaned: Deidentified = field(repr=False)
    embedding: NDArray[np.float64] = field(repr=False)
    prediction: Prediction = field(repr=False)
    stats: CallStats
    passed: Sequence[Passed] = field(repr=False)


class Connection:
    """Thread-safe; one call at a time, so that what passes meanwhile is of that call.

    recorded: whether recorders stand between client and targets. They can on plain connections; TLS shows nothing to them.
    """

    def __init__(self, make: MakeClient, targets: Sequence[str], *, scheme: str, recorded: bool) -> None:
        """Asks once with a packaged text: keys are uploaded and all is loaded when the first real one comes."""
        self.scheme, self.targets = scheme, tuple(targets)
        self._lock = threading.Lock()
        self._stack = ExitStack()
        with ExitStack() as opened:
            self._recorders = [opened.enter_context(Recorder(t)) for t in targets] if recorded else []
            self.client = opened.enter_context(make([r.address for r in self._recorders] or self.targets))
            self._sample = samples.load()[0].text
            try:
                self.client.classify([self._sample])
            except SecureInferError as error:
                raise self._named(error) from None
            self.key_bytes = self.client.last_call.stats.key_bytes
            self._stack = opened.pop_all()

    @property
    def spec(self) -> ModelSpec:
        return self.client.spec

    @property
    def recorded(self) -> bool:
        return bool(self._recorders)

    def ask(self, text: str) -> Asked:
        """Raises InvalidInput for no text, and what `classify` raises."""
        cleaned = _readable(text)
        with self._lock:
            try:
                embedding = self.client.embed([text])[0]
                self._forget()
                prediction = self.client.classify([text])[0]
                passed = [Passed(bytes(r.sent), bytes(r.received)) for r in self._recorders]
            except SecureInferError as error:
                raise self._named(error) from None
            finally:
                self._forget()
            return Asked(text, cleaned, embedding, prediction, self.client.last_call.stats, passed)

    def explain(self, text: str, units: str) -> Explanation:
        """Raises InvalidInput for more units than `MOST_UNITS`, and what `Client.explain` raises."""
        count = len(split(_readable(text).text, units))
        if count > MOST_UNITS:
            raise InvalidInput(f"text: expected at most {MOST_UNITS} {units} to explain, got {count}; shorten it")
        with self._lock:
            try:
                return self.client.explain(text, units=units)
            except SecureInferError as error:
                raise self._named(error) from None
            finally:
                self._forget()

    def plaintext(self) -> Plaintext:
        """The median of a few calls in the clear, of a packaged text: what the user typed is sent to nobody like that.

        Raises SettingsError where the server does not offer it, or bytes cannot be counted.
        """
        if not self._recorders:
            raise SettingsError("plaintext: its bytes are not counted on this connection")
        rows = self.client.embed([self._sample])
        with self._lock:
            self.client.evaluate_plaintext(rows)
            self._forget()
            seconds = [self._timed(rows) for _ in range(_PLAIN_CALLS)]
            up, down = (len(getattr(self._recorders[0], side)) // _PLAIN_CALLS for side in ("sent", "received"))
            self._forget()
        return Plaintext(1e3 * median(seconds), up, down)

    def close(self) -> None:
        self._stack.close()

    def _timed(self, rows: NDArray[np.float64]) -> float:
        started = perf_counter()
        self.client.evaluate_plaintext(rows)
        return perf_counter() - started

    def _forget(self) -> None:
        for recorder in self._recorders:
            recorder.sent.clear()
            recorder.received.clear()

    def _named(self, error: SecureInferError) -> SecureInferError:
        """The error with the targets' own addresses: nobody knows those of recorders."""
        message = error.message
        for recorder, target in zip(self._recorders, self.targets, strict=False):
            message = message.replace(recorder.address, target)
        return type(error)(message, **error.details)


def _readable(text: str) -> Deidentified:
    """The text without identifiers; raises InvalidInput when there is nothing to classify."""
    if len(text) > LONGEST_TEXT:
        raise InvalidInput(f"text: expected at most {LONGEST_TEXT:,} characters, got {len(text):,}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput("text: it holds half a character (a lone surrogate); paste it again")
    if not text.strip():
        raise InvalidInput("text: type or paste a diagnosis first")
    cleaned = deidentify(text)
    if not cleaned.text.strip():
        raise InvalidInput("text: nothing is left once identifiers are removed; expected a diagnosis beside them")
    return cleaned
