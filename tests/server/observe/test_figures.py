"""Figures of calls: what is counted under which name, and that callers make no names."""

from __future__ import annotations

import threading
from contextvars import Context
from typing import Any

import pytest

from secure_infer.errors import CATALOGUE, BudgetExhausted
from secure_infer_server.gate import Ask, OpenGate
from secure_infer_server.observe import calls
from secure_infer_server.observe.calls import Watch
from secure_infer_server.observe.figures import BOUNDS, Figures, Histogram
from secure_infer_server.observe.gate import NotingGate

INFER = "InferenceService/Infer"


def test_a_histogram_counts_up_to_its_bounds() -> None:
    histogram = Histogram()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, BOUNDS[-1], 1e6):
        histogram.add(seconds)
    assert histogram.counts[:2] == [2, 1]
    assert histogram.counts[-2:] == [1, 1]
    assert sum(histogram.counts) == 5


def test_answered_and_refused_calls_are_kept_apart() -> None:
    figures = Figures()
    watch = Watch(figures)
    for failure in ("", "", "RESOURCE_EXHAUSTED"):
        watch.end(watch.begin(INFER, None), failure)
    call = watch.begin(INFER, None)
    call.outcome = "unknown_key"
    watch.end(call, "")
    series = figures.series()[INFER, "", ""]
    assert series.outcomes == {"ok": 2, "RESOURCE_EXHAUSTED": 1, "unknown_key": 1}
    assert {name: sum(found.counts) for name, found in series.stages.items()} == {"total": 3, "refused": 1}


def test_every_reason_of_an_error_is_told_from_an_answer() -> None:
    for reason in (*CATALOGUE, calls.CANCELLED):
        call = calls.Call(INFER)
        call.outcome = reason
        assert not call.answered


def test_stages_are_those_of_an_evaluation() -> None:
    figures = Figures()
    watch = Watch(figures)
    call = watch.begin(INFER, None)
    calls.current().stage("queue", 0.2)
    calls.current().evaluation("slots", 0.01, 0.3, 0.02, 1, 2)
    watch.end(call, "")
    series = figures.series()[INFER, "", "slots"]
    assert set(series.stages) == {*calls.STAGES, "total"} - {"link"}
    assert series.stages["evaluate"].sum == 0.3
    assert (series.blinds_ready, series.blinds_inline) == (1, 2)


def test_the_gate_names_served_models_alone() -> None:
    gate = NotingGate(OpenGate())
    gate.serve({"icd": b"d" * 32})
    for model, noted in (("icd", "icd"), ("a patient's name", ""), (None, "")):
        call = Watch().begin(INFER, None)
        with gate.admit(None, INFER, model, Ask(request_id=b"id")) as admission:
            admission.finish("unknown_key")
        assert (call.model, call.outcome, call.request_id) == (noted, "unknown_key", b"id")


def test_records_are_those_that_stay_charged() -> None:
    class Charged:
        caller, stored, records = "", None, 3

        def begin_answer(self) -> None: ...

        def finish(self, *_: Any, **__: Any) -> None: ...

        def __enter__(self) -> Any:
            return self

        def __exit__(self, kind: Any, *_: object) -> None:
            self.records = 0 if kind else self.records

    class Charging(OpenGate):
        def admit(self, *_: Any) -> Any:
            return Charged()

    gate, watch = NotingGate(Charging()), Watch()
    call = watch.begin(INFER, None)
    with gate.admit(None, INFER):
        pass
    assert call.records == 3
    call = watch.begin(INFER, None)
    with pytest.raises(BudgetExhausted), gate.admit(None, INFER):
        raise BudgetExhausted("none left")
    assert call.records == 0


def test_calls_of_many_threads_are_all_counted() -> None:
    figures = Figures()
    watch = Watch(figures)

    def work() -> None:
        for _ in range(200):
            watch.end(watch.begin(INFER, None), "")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert figures.series()[INFER, "", ""].outcomes["ok"] == 800


def test_outside_a_call_nothing_is_told() -> None:
    def work() -> None:
        calls.current().stage("queue", 1.0)
        assert calls.current().stages == {}

    Context().run(work)
