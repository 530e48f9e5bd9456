"""A record as it is read: shown, verified, exported, searched for an id. The process that writes it may be running."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secure_infer.errors import CannotUnlock, SettingsError
from secure_infer_client.record import frames
from secure_infer_client.record.record import id_hash
from secure_infer_client.sealed import Lock, Secret


@dataclass
class View:
    """What a walk found so far. entries: how many; position: of the last, "SEQUENCE:HASH". torn: bytes of an entry that was
    not finished; problems: what does not hold."""

    path: Path
    ids: bytes = field(repr=False)
    entries: int = 0
    position: str = ""
    torn: int = 0
    problems: list[str] = field(default_factory=list)
    anchors: dict[int, str] = field(default_factory=dict)

    def holds_id(self, entry: dict[str, Any], one: str) -> bool:
        """Whether the entry is of a row of this id."""
        return one in entry.get("ids", ()) or id_hash(self.ids, one) in entry.get("id_hashes", ())


@contextmanager
def read(path: Path, key: Secret, anchors: Sequence[str] = ()) -> Iterator[tuple[View, Iterator[dict[str, Any]]]]:
    """(view, entries): entries in order, each with its `sequence`; the view is complete when they are used up.

    anchors: positions that were kept elsewhere. Raises CannotUnlock for another passphrase, SettingsError for no such file.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise SettingsError(f"record: {path} cannot be read ({error.strerror})") from error
    with file:
        lock = Lock.of(frames.opened(file), key, frames.PURPOSE)
        view = View(path, lock.key(b"ids"), anchors={_sequence(anchor): anchor for anchor in anchors})
        yield view, _entries(view, frames.Chain(lock), file)


def _entries(view: View, chain: frames.Chain, file: Any) -> Iterator[dict[str, Any]]:
    view.position = str(chain.position)
    try:
        for position, message in chain.walk(file):
            view.entries, view.position = position.sequence, str(position)
            expected = view.anchors.pop(position.sequence, view.position)
            if expected != view.position:
                view.problems.append(f"entry {position.sequence} is not the one that the position kept elsewhere names")
            yield {"sequence": position.sequence, **json.loads(message)}
        view.torn = len(file.read())
    except CannotUnlock as error:
        view.problems.append(error.message)
    for sequence in view.anchors:
        view.problems.append(f"entry {sequence}, of which the position was kept elsewhere, is not there")


def _sequence(anchor: str) -> int:
    sequence, _, digest = anchor.partition(":")
    if not (sequence.isdecimal() and len(digest) == 64 and set(digest) <= set("0123456789abcdef")):
        raise SettingsError(f"--anchor: expected SEQUENCE:HASH, the hash 64 hex digits, got {anchor[:100]!r}")
    return int(sequence)
