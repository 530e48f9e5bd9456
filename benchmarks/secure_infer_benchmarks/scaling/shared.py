"""Two parties along the axes of the suite `scaling`: shapes of the head, and records of a call."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from time import sleep

from tqdm import tqdm

from secure_infer.ckks.link import Link
from secure_infer.mpc.program import Program
from secure_infer_benchmarks.delays import PAUSE
from secure_infer_benchmarks.figures import Row, figure
from secure_infer_benchmarks.scaling.shapes import BASE, Shape, Shapes, head, name, row
from secure_infer_benchmarks.synthetic import inputs
from secure_infer_benchmarks.timed import TimedQueries, by_client
from secure_infer_client import Client
from secure_infer_client.local_parties import LocalParties
from secure_infer_client.mpc.session import rows_a_request
from secure_infer_client.planning.shared_work import Taken, taken

LINK = Link.parse("loopback")
WARM_UP = 3
SETTLE = 0.3
"""Seconds after a call of many records, in which the stores fill again."""


class _Asked(TimedQueries):
    """Calls of so many records of one shape."""

    def __init__(self, client: Client, shape: Shape, records: int) -> None:
        super().__init__(head(shape), partial(by_client, client))
        self.client, self.shape, self.records = client, shape, records
        self._x = inputs(shape[0], records)
        self._exact = self.head.evaluate(self._x)

    def warm_up(self) -> None:
        for _ in range(WARM_UP if self.records == 1 else 1):
            self.answer(self._x)
            sleep(PAUSE if self.records == 1 else SETTLE)

    def ask(self) -> None:
        self.compare(self.query(self._x), self._exact)
        sleep(PAUSE if self.records == 1 else SETTLE)

    @cached_property
    def _predicted(self) -> tuple[Program, Taken]:
        """What the planner says, which measures the computing of such shapes here."""
        program = self.client.plan
        assert isinstance(program, Program)
        return program, taken(program, self.records, rows_a_request(program))

    def row(self, axis: str, value: int) -> Row:
        program, cost = self._predicted
        last = self.stats[-1]
        counts = {name: getattr(last, name) for name in ("bytes_up", "bytes_down", "link_bytes", "correlation_bytes")}
        counts |= {
            "rounds": last.link_rounds,
            "predicted_call_ms": 1e3 * cost.seconds(LINK),
            "max_logit_error": self.max_logit_error,
            "error_bound": program.error_bound,
        }
        figures = {
            "computing_ms": figure([one.server_evaluate_ms for one in self.stats]),
            "server_ms": figure([one.server_ms for one in self.stats]),
            "call_ms": figure(self.call_ms),
        }
        if self.records > 1:
            figures["records_a_second"] = figure([1e3 * self.records / ms for ms in self.call_ms], "1/s", "higher")
        words = f"{program.weights} weights, {program.fraction} fraction bits"
        predicts = None if cost.compute is None else ("computing_ms", 1e3 * cost.compute)
        return row(axis, value, "mpc", words, figures, counts, predicts=predicts, shape=self.shape)


def measure(parties: LocalParties, wanted: Shapes, queries: int, records: Sequence[int], calls: int) -> list[Row]:
    """Rows of the shapes, one record a query, and of calls with so many records of the base."""
    with ExitStack() as stack:

        def asked(shape: Shape, count: int) -> _Asked:
            client = stack.enter_context(Client(parties.addresses, model=name(shape), scheme="mpc", timeout=120))
            return _Asked(client, shape, count)

        single = {shape: asked(shape, 1) for shape in wanted.all()}
        many = {count: asked(BASE, count) for count in records}
        for one in tqdm([*single.values(), *many.values()], desc="scaling: parties", leave=False, disable=None):
            one.warm_up()
        for turn in tqdm(range(queries), desc="scaling: shapes, parties", leave=False, disable=None):
            for one in single.values():
                one.ask()
            for one in many.values():
                if turn < calls or one.records == 1:
                    one.ask()
        rows = [single[shape].row(axis, value) for axis, value, shape in wanted.points()]
        return rows + [one.row("batch", count) for count, one in many.items()]
