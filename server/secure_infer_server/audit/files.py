"""What lies in a log's directory.

audit-00000001.jsonl ...   segments, one after the other; the last one grows
audit.head                 the last checkpoint, signed as such: a log cut back to an earlier one no longer fits it
audit.pub                  the public keys that signed, PEM
torn-*.bin                 what a crash left of a line, set aside at the next start; the log says so
torn-*.untold              the same, as long as the log does not
audit.lock                 held by the process that writes
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from secure_infer import whole

HEAD, PUBLIC, LOCK = "audit.head", "audit.pub", "audit.lock"

_SEGMENT = re.compile(r"audit-(\d{8})\.jsonl")


def segment(directory: Path, number: int) -> Path:
    return directory / f"audit-{number:08d}.jsonl"


def segments(directory: Path) -> list[tuple[int, Path]]:
    """(number, file) in order."""
    found = [(_SEGMENT.fullmatch(path.name), path) for path in directory.iterdir()]
    return sorted((int(name[1]), path) for name, path in found if name)


def read_head(directory: Path) -> dict[str, Any] | None:
    """The head's members; None where there is none or it is not readable as one."""
    try:
        head = json.loads((directory / HEAD).read_bytes())
    except (OSError, ValueError):
        return None
    fits = isinstance(head, dict) and type(head.get("sequence")) is int and type(head.get("hash")) is str
    return head if fits else None


def replace(path: Path, data: bytes) -> None:
    """Whole or not at all, durably. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    whole.sync_directory(path.parent)
