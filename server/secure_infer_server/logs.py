"""JSON log lines on stderr with a fixed set of fields; messages hold names, sizes and ids, never content."""

from __future__ import annotations

import json
import logging
import sys
import traceback


class JsonLines(logging.Formatter):
    """One JSON object a record; a traceback as the frames it passed, without the exception's text."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])
            line["frames"] = [f"{f.filename.rpartition('/')[2]}:{f.lineno} {f.name}" for f in frames]  # type: ignore[assignment]
        return json.dumps(line)


def start() -> None:
    """Log to stderr from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
