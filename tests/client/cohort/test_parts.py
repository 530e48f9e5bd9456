"""What a run is made of: preparing, chunks, patience, answers."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_infer.ckks.link import Link
from secure_infer.errors import (
    AnswerRefused,
    BudgetExhausted,
    InternalFault,
    InvalidInput,
    ResourceExhausted,
    SecureInferError,
    ServerUnavailable,
)
from secure_infer.heads import ModelSpec
from secure_infer_client import Client
from secure_infer_client.choice import Offered
from secure_infer_client.cohort import answers
from secure_infer_client.cohort.chunks import SMALLEST, chunks, rows_together
from secure_infer_client.cohort.patience import Patience
from secure_infer_client.cohort.preparing import Features, joined, ready, workers
from secure_infer_client.cohort.rows import Place, Rejected, Row
from secure_infer_client.prediction import Prediction
from secure_infer_client.text.prepare import Prepared
from shared import linear_head


@dataclass
class Picky:
    """Takes all rows but those given "bad"; counts what it was asked to take. Two pieces a row, as long texts have."""

    taken: int = 0
    process: bool = False

    def __call__(self, rows: Sequence[Row], /) -> Prepared:
        if any(row.given == "die" for row in rows):
            os._exit(1)
        for index, row in enumerate(rows):
            if row.given == "bad":
                raise InvalidInput(f"texts[{index}]: holds no word")
        self.taken += len(rows)
        numbers = [row.number for row in rows for _ in range(2)]
        return Prepared(
            np.array([[float(n)] for n in numbers]),
            [i // 2 for i in range(2 * len(rows))],
            [()] * len(rows),
            [2] * len(rows),
        )


def rows_of(given: Sequence[str]) -> list[Row]:
    return [Row(number, None, one) for number, one in enumerate(given, 1)]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["good", "good", "bad"]), max_size=40))
def test_bad_rows_are_rejected_alone(given: list[str]) -> None:
    picky = Picky()
    found = ready(picky, rows_of(given))
    good = [n for n, one in enumerate(given, 1) if one == "good"]
    assert [row.number for row in found.rows] == good
    assert [(one.number, one.reason) for one in found.rejected] == [
        (n, "holds no word") for n, one in enumerate(given, 1) if one == "bad"
    ]
    assert picky.taken == len(good)
    if found.prepared is not None:
        assert found.prepared.rows[:, 0].tolist() == [n for n in good for _ in range(2)]
        assert found.prepared.owner == [i // 2 for i in range(2 * len(good))]


def test_workers_keep_the_order_and_say_when_they_die() -> None:
    given = ["bad" if n % 7 == 3 else "good" for n in range(600)]
    alone = ready(Picky(), rows_of(given))
    with workers(Picky(), 2) as submit:
        waiting = [submit(rows_of(given)), submit(rows_of([])), submit(rows_of(given))]
        found = [wait() for wait in waiting]
        for one in (found[0], found[2]):
            assert (one.rows, one.rejected) == (alone.rows, alone.rejected)
            assert np.array_equal(one.prepared.rows, alone.prepared.rows)
            assert one.prepared.owner == alone.prepared.owner
        assert found[1].prepared is None
        with pytest.raises(InternalFault, match="embed-workers"):
            submit(rows_of(["die"]))()
    with workers(Picky(), 0) as submit:
        assert joined([submit(rows_of(["good"]))()]).rows == rows_of(["good"])


def test_features_are_held_to_the_contract() -> None:
    spec = ModelSpec.of("m", linear_head(3, 2))
    given = [[0.1, 0.2, 0.3], [0.1], [float("nan"), 0.0, 0.0], [5.0, 0.0, 0.0], [0.0, 0.0, 0.9]]
    found = ready(Features(spec), [Row(n, None, one) for n, one in enumerate(given, 1)])
    assert [row.number for row in found.rows] == [1, 5]
    assert [one.number for one in found.rejected] == [2, 3, 4]
    assert found.rejected[0].reason == "expected 3 features, got 1"


def test_chunks_end_by_rows_and_by_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    def source() -> list[tuple[Row | Rejected, Place]]:
        found = [Rejected(n, "") if n % 4 == 0 else Row(n, None, "abc") for n in range(1, 11)]
        return [(one, Place(one.number, one.number)) for one in found]

    made = list(chunks(source(), 3))
    assert [[row.number for row in chunk.rows] for chunk in made] == [[1, 2, 3], [5, 6, 7], [9, 10]]
    assert [[one.number for one in chunk.rejected] for chunk in made] == [[], [4], [8]]
    assert [chunk.place.number for chunk in made] == [3, 7, 10]
    monkeypatch.setattr("secure_infer_client.cohort.chunks.CHARACTERS", 6)
    assert [len(chunk.rows) for chunk in chunks(source(), 3)] == [2, 2, 2, 2]
    rejected = [(Rejected(n, ""), Place(n, n)) for n in range(1, 8)]
    assert [chunk.place.number for chunk in chunks(rejected, 3)] == [3, 6, 7]


def test_a_chunk_is_a_whole_batch_where_one_pays(address: str) -> None:
    link = Link.parse("loopback")
    with Client(address, model="small") as client:
        found = rows_together(client.offered, link, texts=False)
        assert found == SMALLEST or found in {plan.records for plan in client.batch_plans}
    assert rows_together(Offered(), link, texts=True) == SMALLEST


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


def failing(*errors: SecureInferError):
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "answered"

    return call


def test_patience_waits_within_its_limit() -> None:
    clock, told = Clock(), []
    patience = Patience(100.0, lambda error, seconds: told.append(seconds), clock, clock.pause)
    assert patience.call(failing(*[ServerUnavailable("away")] * 4)) == "answered"
    assert patience.retries == len(told) == 4
    assert patience.waited == pytest.approx(clock.now) == pytest.approx(sum(told))
    assert all(low <= seconds <= 2 * low for low, seconds in zip((0.375, 0.75, 1.5, 3.0), told, strict=True))
    with pytest.raises(ServerUnavailable):
        patience.call(failing(*[ServerUnavailable("away")] * 100))
    assert clock.now <= 100 + patience.limit
    for error in (AnswerRefused("no"), ResourceExhausted("too large"), InvalidInput("bad")):
        with pytest.raises(type(error)):
            patience.call(failing(error))
    assert patience.call(failing(ResourceExhausted("busy", again=1))) == "answered"


def test_patience_knows_when_budgets_renew() -> None:
    clock = Clock()
    patience = Patience(100.0, lambda error, seconds: None, clock, clock.pause)
    soon = (datetime.now(UTC) + timedelta(seconds=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert patience.call(failing(BudgetExhausted("used up", renews=soon))) == "answered"
    assert 50 <= clock.now <= 62
    late = (datetime.now(UTC) + timedelta(hours=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    for renews in (late, "never"):
        with pytest.raises(BudgetExhausted):
            patience.call(failing(BudgetExhausted("used up", renews=renews)))


def test_answers_in_columns() -> None:
    spec = ModelSpec.of("m", linear_head(3, 2))
    row = Row(7, 'a "quoted", id', "text")
    sure = Prediction("x; y", 0.9, np.array([1.0, 2.0]), 1.0, 0.25, True)
    names = answers.columns(spec, ids=True, label_only=False, logits=True)
    written = [answers.values(row, sure, spec.digest, names)]
    assert json.loads(answers.as_json(written)) == written[0]
    text = (answers.csv_header(names) + answers.as_csv(written, names)).decode()
    (back,) = csv.DictReader(text.splitlines())
    assert back == {
        "row": "7",
        "id": 'a "quoted", id',
        "label": "x; y",
        "probability": "0.9",
        "margin": "1.0",
        "certain": "true",
        "abstain": "false",
        "error_bound": "0.25",
        "model_digest": spec.digest,
        "logits": "[1.0, 2.0]",
    }
    assert answers.columns(spec, ids=False, label_only=True, logits=True) == [
        *("row", "label", "error_bound", "model_digest")
    ]


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    import signal
    import subprocess
    import sys

    code = (
        "import os\n"
        "from secure_infer_client.cohort.preparing import Features, workers\n"
        "from secure_infer_client.cohort.rows import Row\n"
        "from secure_infer.heads import Head, Linear, ModelSpec\n"
        "import numpy as np\n"
        "if __name__ == '__main__':\n"
        "    spec = ModelSpec.of('m', Head([Linear(np.ones((2, 1)), np.zeros(2))], labels=['a', 'b'], input_bound=1.0))\n"
        "    with workers(Features(spec), 1) as submit:\n"
        "        submit([Row(1, None, [0.5])])()\n"
        "        import multiprocessing\n"
        "        print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "        os.kill(os.getpid(), 9)\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    worker = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its parent")
