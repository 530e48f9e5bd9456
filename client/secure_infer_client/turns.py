"""Calls of one client take turns, and those that wait for theirs go together.

Whoever comes while a call is under way waits. When it ends, the rows of those who wait become one call, as far as that is
quicker (`fits`), and each gets its own part of the answer. So nobody waits for others to come: a lone caller's call is made
at once, and the delay of joining is bounded by the call under way. Worked example, 2 ms a call of up to 48 rows: of ten threads
that ask one row each at once, the first is answered after 2 ms, the other nine after 4.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import BudgetExhausted, InternalFault, InvalidInput, ResourceExhausted
from secure_infer.heads import ModelSpec
from secure_infer_client.batches import Progress
from secure_infer_client.costs import Costs
from secure_infer_client.prediction import CallStats

Ask = Callable[[NDArray[np.float64], Costs, Progress], Any]
"""Rows (B, d) to B answers, an array or a list; the costs are added up."""

ONE_BY_ONE = (InvalidInput, BudgetExhausted, ResourceExhausted)
"""What may be wrong with one caller's rows, or only with all of them: then each is asked for by itself."""


class Answered(NamedTuple):
    """What was asked for, the cost of the call it was in, and the model that answered."""

    answers: Any
    stats: CallStats
    spec: ModelSpec


@dataclass(eq=False)
class _Waiting:
    """One caller's rows, and in the end its answers or what went wrong."""

    ask: Ask
    rows: NDArray[np.float64]
    progress: Progress
    answered: Answered | None = None
    problem: Exception | None = None
    done: bool = False


class Turns:
    """fits: of so many rows each, in order, how many callers go together; at least one."""

    def __init__(self, fits: Callable[[Sequence[int]], int]) -> None:
        self._fits = fits
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._owner: int | None = None
        self._depth = 0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A turn for something that is not asked together. A thread that has its turn may take another within."""
        with self._changed:
            self._changed.wait_for(self._free)
            self._take()
        try:
            yield
        finally:
            self._give()

    def together(self, ask: Ask, rows: NDArray[np.float64], progress: Progress) -> Answered:
        """What `ask` answers to the rows; raises what that raised."""
        own = _Waiting(ask, rows, progress)
        if self._owner == threading.get_ident():  # asked from within a turn
            _run([own])
        else:
            self._wait(own)
        if own.problem is not None:
            raise own.problem
        if own.answered is None:
            raise InternalFault("a turn ended without an answer")
        return own.answered

    def _wait(self, own: _Waiting) -> None:
        with self._changed:
            self._waiting.append(own)
        try:
            while not own.done:
                with self._changed:
                    self._changed.wait_for(lambda: own.done or self._free())
                    if own.done:
                        return
                    group = self._next()
                    self._take()
                try:
                    _run(group)
                finally:
                    with self._changed:  # interrupted, as by Ctrl-C: the others are asked for by one of them
                        self._waiting.extendleft(w for w in reversed(group) if not w.done and w is not own)
                    self._give()
        finally:
            with self._changed:
                if own in self._waiting:
                    self._waiting.remove(own)

    def _next(self) -> list[_Waiting]:
        """Those who have waited longest and want the same."""
        alike = []
        for waiting in self._waiting:
            if waiting.ask != self._waiting[0].ask:
                break
            alike.append(waiting)
        count = self._fits([len(waiting.rows) for waiting in alike]) if len(alike) > 1 else 1
        return [self._waiting.popleft() for _ in range(count)]

    def _free(self) -> bool:
        return self._owner is None or self._owner == threading.get_ident()

    def _take(self) -> None:
        self._owner = threading.get_ident()
        self._depth += 1

    def _give(self) -> None:
        with self._changed:
            self._depth -= 1
            if self._depth == 0:
                self._owner = None
                self._changed.notify_all()


def _run(group: list[_Waiting]) -> None:
    """One call for all of them; every one is done then."""
    costs = Costs()

    def reached(done: float) -> None:
        for waiting in group:
            try:
                if waiting.problem is None:
                    waiting.progress(done)
            except Exception as problem:
                if len(group) == 1:
                    raise
                waiting.problem = problem  # its own, when the call is over

    try:
        rows = group[0].rows if len(group) == 1 else np.concatenate([waiting.rows for waiting in group])
        answers = group[0].ask(rows, costs, reached)
        stats = costs.stats(len(rows), 0.0, callers=len(group))
    except Exception as problem:
        if len(group) > 1 and isinstance(problem, ONE_BY_ONE):
            for waiting in group:
                _run([waiting])
            return
        for number, waiting in enumerate(group):  # an exception is raised in one thread
            waiting.problem = waiting.problem or (copy.copy(problem) if number else problem)
            waiting.done = True
        return
    start = 0
    for waiting in group:
        waiting.answered = Answered(answers[start : start + len(waiting.rows)], stats, costs.spec)
        start += len(waiting.rows)
        waiting.done = True
