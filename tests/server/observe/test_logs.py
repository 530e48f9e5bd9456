"""Log lines: listed fields alone, no exception's text, no message of another package, and the ids of the call under way."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from secure_infer.errors import InternalFault, MalformedRequest
from secure_infer_server import faults, logs
from secure_infer_server.observe.calls import Watch, current

SECRET = "zygomatic fracture"
LOG = logging.getLogger("secure_infer_server.tests")

Lines = Callable[[], str]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[logs.Format], Lines]]:
    """Begins to log in a format; what it returns tells what was written."""
    root = logging.getLogger()
    before = (root.level, list(root.handlers), threading.excepthook, sys.unraisablehook, logs.chosen())

    def begin(form: logs.Format) -> Lines:
        stderr = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stderr)
        logs.start(form)
        return stderr.getvalue

    yield begin
    logging.captureWarnings(False)
    root.setLevel(before[0])
    root.handlers[:], threading.excepthook, sys.unraisablehook, logs._chosen = before[1:]


def fail() -> None:
    raise ValueError(SECRET)


def caught() -> None:
    try:
        fail()
    except ValueError:
        LOG.exception("taken in")


@pytest.mark.parametrize("form", logs.Format)
def test_an_exception_is_told_without_its_text(written: Any, form: logs.Format) -> None:
    lines = written(form)
    caught()
    assert "ValueError" in lines()
    assert "test_logs.py:" in lines()
    assert "fail" in lines()
    assert SECRET not in lines()


@pytest.mark.parametrize("form", logs.Format)
def test_other_packages_messages_are_not_written(written: Any, form: logs.Format) -> None:
    """asyncio prints the exceptions of tasks that nobody waits for, text and all."""
    lines = written(form)

    async def forget() -> None:
        task = asyncio.get_running_loop().create_task(asyncio.to_thread(fail))
        await asyncio.wait([task])
        del task

    asyncio.run(forget())
    logging.getLogger("somebody.else").error("cannot parse %s", SECRET)
    logging.getLogger("secure_inference").error(SECRET)  # a name that begins alike is another package
    assert "asyncio" in lines()
    assert "ValueError" in lines()
    assert "somebody.else" in lines()
    assert SECRET not in lines()


@pytest.mark.parametrize("form", logs.Format)
def test_threads_and_finalisers_die_without_their_text(written: Any, form: logs.Format) -> None:
    lines = written(form)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()

    class Lost:
        def __del__(self) -> None:
            fail()

    Lost()
    assert lines().count("ValueError") == 2
    assert SECRET not in lines()


def test_fields_are_those_listed(written: Any) -> None:
    lines = written(logs.Format.JSON)
    call = Watch().begin("InferenceService/Infer", None)
    call.model, call.request_id, call.trace = "icd", b"one", "7" * 32
    LOG.info("said %d", 1, extra={"text": SECRET, "fault": "ab"})
    caught()
    Watch().end(call, "")
    logging.getLogger("else").info("said")
    found = [json.loads(line) for line in lines().splitlines()]
    assert set().union(*found) == set(logs.FIELDS)
    assert found[0]["message"] == "said 1"
    request = hashlib.sha256(b"one").hexdigest()  # as in the audit log
    assert [found[0][name] for name in ("method", "model", "request")] == ["InferenceService/Infer", "icd", request]
    assert SECRET not in lines()
    assert "request" not in found[-1]  # the call is over


def test_people_read_one_line_a_message(written: Any) -> None:
    lines = written(logs.Format.TEXT)
    LOG.warning("the key is old", extra={"fault": "ab"})
    caught()
    first, second, *frames = lines().splitlines()
    assert first.endswith("WARNING secure_infer_server.tests: the key is old fault=ab")
    assert second.endswith("taken in error=ValueError")
    assert [frame[:4] for frame in frames] == ["    "] * 2


def test_a_fault_has_one_id_everywhere(written: Any) -> None:
    lines = written(logs.Format.JSON)
    watch = Watch()
    watch.begin("InferenceService/Infer", None)
    try:
        fail()
    except ValueError:
        fault = faults.unexpected(LOG, "Infer")
    assert current().fault == fault.details["id"] == json.loads(lines())["fault"]
    faults.failed(LOG, "Infer", InternalFault("a worker died", id="cd"))
    assert json.loads(lines().splitlines()[1])["fault"] == current().fault == "cd"
    faults.failed(LOG, "Infer", MalformedRequest("what a client has to mend is not logged"))
    assert len(lines().splitlines()) == 2


@pytest.mark.parametrize("form", logs.Format)
def test_time_is_utc_whatever_the_machines_zone(
    written: Any, form: logs.Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Pacific/Chatham")
    time.tzset()
    try:
        lines = written(form)
        before = datetime.now(UTC)
        LOG.warning("now")
        line = lines()
    finally:
        monkeypatch.undo()
        time.tzset()
    text = json.loads(line)["time"] if form is logs.Format.JSON else line.split()[0]
    assert text.endswith("Z")
    assert 0 <= (datetime.fromisoformat(text) - before).total_seconds() + 0.001 < 60
