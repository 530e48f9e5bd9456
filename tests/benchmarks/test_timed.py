"""Timed queries: what is kept of each, and what answers in logits or labels are worth beside plaintext's."""

from __future__ import annotations

import numpy as np

from secure_infer.heads import Head
from secure_infer_benchmarks.synthetic import inputs, unit_norm_head
from secure_infer_benchmarks.timed import Answer, Floats, TimedQueries

HEAD: Head = unit_norm_head(8, 3)
ROWS = inputs(8, 4)


def test_logits_have_an_error_and_every_record_counts() -> None:
    asked = TimedQueries(HEAD, lambda x: (HEAD.evaluate(x) + 0.25, None))
    for x in (ROWS[:1], ROWS[1:]):
        asked.compare(asked.query(x), HEAD.evaluate(x))
    assert len(asked.call_ms) == 2
    assert min(asked.call_ms) > 0
    assert asked.stats == []  # nobody said what they cost
    assert np.allclose(asked.errors, 0.25)
    assert asked.max_logit_error == max(asked.errors)
    assert (asked.counted, asked.agreement) == (4, 1.0)


def test_labels_have_none_and_agree_or_not() -> None:
    def first_is_wrong(x: Floats) -> tuple[Answer, None]:
        return ["another", *asked.spec.decide(HEAD.evaluate(x))[1:]], None

    asked = TimedQueries(HEAD, first_is_wrong)
    exact = HEAD.evaluate(ROWS)
    asked.compare(asked.query(ROWS), exact)
    assert asked.max_logit_error is None
    assert asked.agreement == 0.75
    asked.compare(asked.query(ROWS), exact, np.array([False, True, True, False]))
    assert (asked.counted, asked.agreed) == (6, 5)


def test_without_a_record_that_counts_there_is_no_agreement() -> None:
    asked = TimedQueries(HEAD, lambda x: (HEAD.evaluate(x), None))
    asked.compare(asked.query(ROWS), HEAD.evaluate(ROWS), np.zeros(4, bool))
    assert asked.agreement is None
    assert asked.max_logit_error == 0.0
