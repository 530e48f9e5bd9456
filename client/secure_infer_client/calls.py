"""How a client's calls reach its session: while it is open, in the process that made it, in turn or together (`turns`)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import grpc
import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import InvalidInput, SettingsError
from secure_infer.heads import ModelSpec
from secure_infer_client.batches import Progress
from secure_infer_client.costs import Costs
from secure_infer_client.mpc.session import SharedSession
from secure_infer_client.prediction import Call
from secure_infer_client.session import Session
from secure_infer_client.turns import Answered, Turns

Rows = NDArray[np.float64]


class Calls:
    """Thread-safe. channels: closed with the session."""

    def __init__(self, session: Session | SharedSession, channels: Sequence[grpc.Channel]) -> None:
        self._session, self._channels = session, channels
        self._turns = Turns(session.fits)
        self._process = os.getpid()
        self._closed = False
        self._last: Call | None = None

    @property
    def last(self) -> Call:
        """The latest that ended, of any thread."""
        if self._last is None:
            raise InvalidInput("last_call: nothing was predicted yet")
        return self._last

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One at a time; raises SettingsError after a fork or `close`."""
        self._require_own()  # before the lock: a fork may have copied it held
        with self._turns.alone():
            self._require_open()
            yield

    def spec(self) -> ModelSpec:
        """The pinned model. Waits for a turn only where it has to be asked for."""
        self._require_own()
        self._require_open()
        pinned = self._session.pinned
        if pinned is None:
            with self.turn():
                pinned = self._session.spec
        return pinned

    def predict(self, rows: Rows, embed: float, progress: Progress) -> Answered:
        """Logits of rows that keep the contract. embed: seconds that came before it."""
        return self._counted(self._turns.together(self._predict, rows, progress), embed)

    def decide(self, rows: Rows, embed: float, progress: Progress) -> Answered:
        """As `predict`; answers in words."""
        return self._counted(self._turns.together(self._decide, rows, progress), embed)

    def close(self) -> None:
        """Destroy the keys and close the connections, once what is under way has ended; again does nothing.

        In a child of a fork nothing is touched: it is all the parent's.
        """
        if self._process != os.getpid():
            return
        with self._turns.alone():
            if self._closed:
                return
            self._closed = True
            self._session.close()
            for channel in self._channels:
                channel.close()

    def _predict(self, rows: Rows, costs: Costs, progress: Progress) -> Rows:
        self._require_open()
        return self._session.predict(rows, costs, progress)

    def _decide(self, rows: Rows, costs: Costs, progress: Progress) -> list[str]:
        self._require_open()
        return self._session.decide(rows, costs, progress)

    def _counted(self, answered: Answered, embed: float) -> Answered:
        stats = answered.stats
        stats = replace(stats, embed_ms=1e3 * embed, total_ms=stats.total_ms + 1e3 * embed)
        self._last = Call(stats, answered.spec.digest)
        return answered._replace(stats=stats)

    def _require_own(self) -> None:
        if self._process != os.getpid():
            raise SettingsError("this client was made before a fork; make a new Client in the child process")

    def _require_open(self) -> None:
        if self._closed:
            raise SettingsError("this client is closed; make a new one")
