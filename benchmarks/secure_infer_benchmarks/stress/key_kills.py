"""A disk store that is killed at random moments while it works, and what must hold afterwards.

A child process uploads, resumes, reads and deletes; it says on its output what it is about to do and what it has done. The
parent kills it (SIGKILL), opens the store, and checks: nothing is held that was not uploaded whole, everything that was
said to be done is, and files and rows agree.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from tqdm import tqdm

from secure_infer.errors import MalformedRequest
from secure_infer_server.keys.disk import DiskBackend
from secure_infer_server.keys.limits import KeyLimits
from secure_infer_server.keys.names import KeyName

LIMITS = KeyLimits(expiry=1e6)
"""With room for all that is uploaded: what is missing was lost."""
OWNERS, KEYS, CHUNK = 3, 5, 40_000
LONGEST = 0.6
"""Seconds from the child's first word to its end."""


@dataclass(frozen=True)
class Endured:
    """Kills, of them those in the middle of something; keys found whole, uploads that went on, remains swept away."""

    kills: int = 0
    interrupted: int = 0
    keys: int = 0
    uploads: int = 0
    swept: int = 0


class Inconsistent(Exception):
    """A store that broke its word."""


def body(owner: int, key: int) -> bytes:
    """A key's bytes, the same in every process: 10 to 210 kB."""
    seed = f"{owner}/{key}".encode()
    return hashlib.shake_256(seed).digest(10_000 + 50_000 * key)


def name_of(owner: int, key: int) -> KeyName:
    return KeyName(f"owner {owner}", hashlib.sha256(b"plan").digest(), hashlib.sha256(body(owner, key)).digest())


def work(root: Path, shared: bool = False) -> None:
    """The child: never ends by itself. shared: with others, which may delete what this one uploads."""

    def say(step: str, owner: int, key: int) -> None:
        sys.stdout.write(json.dumps([step, owner, key]) + "\n")
        sys.stdout.flush()

    store = DiskBackend(root, LIMITS)
    say("open", 0, 0)
    while True:
        owner, key = secrets.randbelow(OWNERS), secrets.randbelow(KEYS)
        name, data = name_of(owner, key), body(owner, key)
        if secrets.randbelow(3):
            say("upload", owner, key)
            stop = len(data) if secrets.randbelow(4) else secrets.randbelow(len(data))
            try:
                held = store.begin(name, "model", len(data))
                for start in range(held, max(held, stop), CHUNK):
                    store.append(name, start, data[start : min(stop, start + CHUNK)])
                if stop == len(data):
                    store.commit(name, lambda _: None)
                    say("uploaded", owner, key)
            except MalformedRequest:
                if not shared:
                    raise
        elif secrets.randbelow(2):
            say("read", owner, key)
            if store.get(name) not in (None, data):
                say("wrong", owner, key)
        else:
            say("delete", owner, key)
            store.delete(name)
            say("deleted", owner, key)


def check(
    root: Path, words: list[tuple[str, int, int]], known: dict[tuple[int, int], bool | None]
) -> tuple[int, int, int]:
    """Hold the store to what was said; returns keys, uploads and remains found. Raises Inconsistent.

    known: whether each key is held; None where the end came before the word. Brought up to date.
    """
    for step, owner, key in words:
        if step == "wrong":
            raise Inconsistent("a read gave other bytes than were uploaded")
        if step in ("upload", "delete"):
            known[owner, key] = known.get((owner, key), False) if step == "upload" and known.get((owner, key)) else None
        elif step in ("uploaded", "deleted"):
            known[owner, key] = step == "uploaded"
    with sqlite3.connect(root / "keys.db") as rows:
        if rows.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            raise Inconsistent("the database is damaged")
    rows.close()
    before = len(_files(root))
    store = DiskBackend(root, LIMITS)
    try:
        uploads = 0
        for owner in range(OWNERS):
            held = {key.name for key in store.held(f"owner {owner}")}
            pending = set(store.pending(f"owner {owner}"))
            uploads += len(pending)
            if held & pending:
                raise Inconsistent("a key is held, and its upload goes on")
            for key in range(KEYS):
                name, data = name_of(owner, key), body(owner, key)
                expected, found = known.get((owner, key), False), name in held
                if expected is not None and expected != found:
                    raise Inconsistent(
                        f"a key that was {'uploaded' if expected else 'deleted, or never whole,'} is not so"
                    )
                if store.get(name) != (data if found else None):
                    raise Inconsistent("a key's bytes are not those uploaded")
                if name in pending:  # what is said to be held must be it: the rest completes it
                    at = store.begin(name, "model", len(data))
                    store.append(name, at, data[at:])
                    store.commit(name, lambda _: None)
                    found = True
                known[owner, key] = found
        usage, files = store.usage(), _files(root)
        if len(files) != usage.keys:
            raise Inconsistent(f"{len(files)} files for {usage.keys} keys")
        return usage.keys, uploads, max(0, before - len(files))
    finally:
        store.close()


def _files(root: Path) -> list[Path]:
    return [*(root / "blobs").iterdir(), *(root / "pending").iterdir()]


def endure(kills: int, root: Path) -> Endured:
    """Kill so many times; raises Inconsistent. root: an empty or new directory."""
    known: dict[tuple[int, int], bool | None] = {}
    interrupted = keys = uploads = swept = 0
    for _ in tqdm(range(kills), desc="killing key stores", unit="store", leave=False, disable=None):
        command = [sys.executable, "-m", __spec__.name, str(root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            said = cast(IO[str], child.stdout)  # asked for above
            said.readline()
            time.sleep(secrets.randbelow(1000) / 1000 * LONGEST)
            child.send_signal(signal.SIGKILL)
            words = [tuple(json.loads(line)) for line in said if line.endswith("\n")]
        interrupted += bool(words) and words[-1][0] in ("upload", "delete")
        found = check(root, words, known)
        keys, uploads, swept = keys + found[0], uploads + found[1], swept + found[2]
    return Endured(kills, interrupted, keys, uploads, swept)


if __name__ == "__main__":  # the child
    work(Path(sys.argv[1]), shared=sys.argv[2:] == ["shared"])
