"""Log lines on stderr, of fields that are listed here and no others; messages hold names, sizes and ids, never content.

Two ways round that rule are closed. An exception is told by its type and the frames it passed, never by its text, which may quote
a request. And what other packages say of their own accord is told by where they said it: asyncio, for one, prints exceptions
into its messages.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType
from typing import Any

from secure_infer_server.observe import calls

FIELDS = ("time", "level", "logger", "message", "at", "error", "frames", "fault", "method", "model", "request", "trace")
"""time: UTC, as in the audit log. message: of this server's own. at: of others' messages, where they were logged. error: an
exception's type. fault: the id that a caller was answered with. method, model, request, trace: of the call under way; request
as in the audit log."""

TOLD = ("secure_infer", "secure_infer_server", "opentelemetry")
"""Packages whose messages are written: the last is given nothing but what traces hold."""


class Format(StrEnum):
    """json: one object a line. text: for people to read."""

    JSON = "json"
    TEXT = "text"


class JsonLines(logging.Formatter):
    """One JSON object a record."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_fields(record))


class Text(logging.Formatter):
    """One line a record, and one more for each frame that an exception passed."""

    def format(self, record: logging.LogRecord) -> str:
        line = _fields(record)
        head = f"{line.pop('time')} {line.pop('level')} {line.pop('logger')}: {line.pop('message', '')}".rstrip()
        frames = line.pop("frames", [])
        rest = "".join(f" {name}={value}" for name, value in line.items())
        return "\n    ".join([head + rest, *frames]).replace("\r", " ")


_FORMATS = {Format.JSON: JsonLines, Format.TEXT: Text}
_chosen = Format.JSON


def start(chosen: Format | None = None) -> None:
    """Log to stderr from now on; what a thread dies of, too."""
    global _chosen
    _chosen = chosen or _chosen
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_FORMATS[_chosen]())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    threading.excepthook = lambda died: _died("a thread", died.exc_type, died.exc_value, died.exc_traceback)
    sys.unraisablehook = lambda lost: _died("a finaliser", lost.exc_type, lost.exc_value, lost.exc_traceback)


def chosen() -> Format:
    """What this process logs in: for those that it starts."""
    return _chosen


def _died(what: str, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None and not isinstance(error, SystemExit):
        logging.getLogger(__name__).error("%s died", what, exc_info=(kind, error, trace))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    call = calls.current()
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line: dict[str, Any] = {"time": time, "level": record.levelname, "logger": record.name}
    if record.name.partition(".")[0] in TOLD:
        line["message"] = record.getMessage()
    else:
        line["at"] = f"{record.filename}:{record.lineno} {record.funcName}"
    if record.exc_info and record.exc_info[0] is not None:
        line["error"] = record.exc_info[0].__name__
        frames = traceback.extract_tb(record.exc_info[2])
        line["frames"] = [f"{f.filename.rpartition('/')[2]}:{f.lineno} {f.name}" for f in frames]
    ids = {
        "fault": getattr(record, "fault", ""),
        "method": call.method,
        "model": call.model,
        "request": call.request,
        "trace": call.trace,
    }
    return line | {name: value for name, value in ids.items() if value}
