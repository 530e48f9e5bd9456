"""Takes up a log where it ended, also after a crash: what is torn is set aside and recorded, never dropped silently."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from secure_infer.errors import SettingsError
from secure_infer_server.audit import chain, files
from secure_infer_server.audit.chain import Chain

_UNTOLD = ".untold"
"""Ends the names of files that were set aside until the log says so."""


@dataclass(frozen=True)
class Resumed:
    """segment: number of the one to append to, 0 for a log that begins. log: its id, empty likewise. torn: what the log has to
    say of each piece that was set aside."""

    chain: Chain
    segment: int
    log: str
    torn: list[dict[str, Any]]


def require_sound(directory: Path) -> None:
    """Raise SettingsError for a log that `resume` would not take up. Nothing is changed; another process may be writing."""
    head = files.read_head(directory)  # first: entries that come meanwhile are beyond it
    where = Chain()
    for _, path in reversed(files.segments(directory)):
        if not path.is_file():
            raise SettingsError(f"audit log: {path} is not a file")
        where, end, _ = _last_entry(path.read_bytes())
        if end:
            break
    if head is not None and where.sequence < head["sequence"]:
        raise _damaged(directory, f"whole entries end at {where.sequence}, its signed head at {head['sequence']}")


def require_key(path: Path, directory: Path) -> None:
    """Raise SettingsError for a log that has begun and whose key is gone: one made in silence may be a misspelt name's."""
    if not path.exists() and directory.is_dir() and files.segments(directory):
        raise SettingsError(
            f"audit key: {path} is not there, and the log in {directory} was signed with it; put it back, or make a new one: "
            f"openssl genpkey -algorithm ed25519 -out {path} && chmod 600 {path}"
        )


def resume(directory: Path) -> Resumed:
    """Read the last segment to its end; bytes after the last whole entry go to a file of their own.

    A crash tears the end only. Entries that end before the signed head are no crash: SettingsError. Raises OSError where the
    directory cannot be written.
    """
    found = files.segments(directory)
    head = files.read_head(directory)
    torn: list[dict[str, Any]] = []
    while found:
        number, path = found.pop()
        data = path.read_bytes()
        where, end, log = _last_entry(data)
        if head is not None and where.sequence < head["sequence"] and (end or not found):
            raise _damaged(directory, f"whole entries end at {where.sequence}, its signed head at {head['sequence']}")
        if data[end:]:
            torn.append(_set_aside(path, data[end:], end))
        if end:
            return Resumed(where, number, log, _with_untold(directory, torn))
        path.unlink()  # its first line never became durable: the segment before it is the last
    if head is not None:
        raise _damaged(directory, f"there are no entries, its signed head says {head['sequence']}")
    return Resumed(Chain(), 0, "", torn)


def _last_entry(data: bytes) -> tuple[Chain, int, str]:
    """(where the chain stands, bytes up to there, the log's id) of a segment, up to the first line that does not fit."""
    where, end, log = Chain(), 0, ""
    for line in BytesIO(data):
        entry = chain.read(line[:-1]) if line.endswith(b"\n") else None
        if entry is None or not entry.whole:
            break
        if end and (entry.sequence, entry.previous) != (where.sequence + 1, where.hash):
            break
        where, end, log = Chain(entry.sequence, entry.hash), end + len(line), entry.fields.get("log", log)
    return where, end, log


def _set_aside(path: Path, torn: bytes, end: int) -> dict[str, Any]:
    """Move what follows `end` to a file named by its hash; returns what the log says of it."""
    said = _said(path.name, torn)
    files.replace(path.with_name(f"{said['file']}.{path.name}{_UNTOLD}"), torn)
    with path.open("r+b") as file:
        file.truncate(end)
        os.fsync(file.fileno())
    return said


def _said(segment: str, torn: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(torn).hexdigest()
    return {"file": f"torn-{digest[:16]}.bin", "segment": segment, "bytes": len(torn), "sha256": digest}


def _with_untold(directory: Path, torn: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Besides, what a start set aside that ended before the log said so."""
    for path in sorted(directory.glob(f"torn-*{_UNTOLD}")):
        said = _said(path.name.partition(".bin.")[2].removesuffix(_UNTOLD), path.read_bytes())
        if said not in torn:
            torn.append(said)
    return torn


def told(directory: Path) -> None:
    """The log says what `resume` set aside. Raises OSError."""
    for path in directory.glob(f"torn-*{_UNTOLD}"):
        path.replace(directory / f"{path.name.partition('.bin.')[0]}.bin")


def _damaged(directory: Path, what: str) -> SettingsError:
    return SettingsError(
        f"audit log in {directory}: {what}. That is no crash; look with `secure-infer audit verify {directory}`, move the "
        "directory aside, and start with an empty one"
    )
