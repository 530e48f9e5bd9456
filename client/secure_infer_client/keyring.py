"""`KeyRing`: what a client may keep between processes, encrypted at rest.

    with Client("infer.example:8443", model="m", key_ring=KeyRing("ward-7.ring", passphrase="...")) as client: ...

For each model at each target, an `Entry`: the seeds of secret keys, which key material the server was sent (by digest, so that
it is neither made nor sent again), the pinned description of the model with its plans, and how many answers were refused. A
new process with a warm ring asks its first query at once.

Seeds are opaque here: `keys` alone makes secrets of them. A seed that is dropped is gone from the file, durably, when the call
returns. Backups of a ring bring destroyed keys back: leave it out of them; a lost ring costs one upload.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from secure_infer.errors import SettingsError
from secure_infer_client.providers import KeyProvider
from secure_infer_client.ringfile import RingFile
from secure_infer_client.ringstate import Name, State, packed, parsed


class Entry:
    """One client's part of a ring, or of none: then nothing outlives it. `state` is changed in a `changing` block only."""

    def __init__(self, name: Name, ring: KeyRing | None = None, state: State | None = None) -> None:
        self.name = name
        self.state = State() if state is None else state
        self._ring = ring

    @property
    def lasts(self) -> bool:
        """Whether anything is kept."""
        return self._ring is not None

    @contextmanager
    def changing(self, *, or_ruin: bool = False) -> Iterator[State]:
        """The state, to be changed within the block; on the disk when it is left. Raises SettingsError. or_ruin: where it
        cannot be written, the file is made unreadable."""
        if self._ring is None:
            yield self.state
            return
        with self._ring.saving(or_ruin=or_ruin):
            yield self.state

    def refuse(self) -> None:
        """An answer failed its check: its keys are gone, and the refusal is counted, on the disk, when this returns."""
        with self.changing(or_ruin=True) as state:
            state.refusals += 1
            state.drop_keys()

    def after_refusals(self, whom: str) -> str:
        """What to do once a client has stopped."""
        if self._ring is None:
            return f"Report the {whom}; do not retry"
        return (
            f"Report the {whom}. The key ring keeps the count: once it is known why, `secure-infer keys delete` "
            "forgets the entry"
        )

    def close(self) -> None:
        ring, self._ring = self._ring, None
        if ring is not None:
            ring.give_back(self)


class KeyRing:
    """A file of keys. One process at a time holds it, from its first client to its last, or within `with`.

    path: the file, made with mode 0600 in a directory that is there. passphrase: at least eight characters; or provider, which
    gives the file's key (`providers`). Clients of one process share a ring; each model at each target has one of them.
    Raises SettingsError where the file may not be used as it is, CannotUnlock where it does not open.
    """

    def __init__(self, path: str | Path, *, passphrase: str | None = None, provider: KeyProvider | None = None) -> None:
        self.path = Path(path)
        self._secret = _one_of(passphrase, provider)
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._file: RingFile | None = None
        self._users = 0
        self._states: dict[Name, State] = {}
        self._taken: set[Name] = set()

    # Who has it.

    def open(self) -> None:
        """Hold the file, and read it; each time wants a `close`."""
        self._require_own()
        with self._lock:
            if self._file is None:
                file = RingFile(self.path, self._secret)
                try:
                    self._states = parsed(self.path, file.read())
                except BaseException:
                    file.close()
                    raise
                self._file = file
            self._users += 1

    def close(self) -> None:
        """Let go of the file when nobody else here has it open."""
        if self._process != os.getpid():
            return
        with self._lock:
            self._users = max(0, self._users - 1)
            if self._users == 0 and self._file is not None:
                self._file.close()
                self._file = None
                self._states = {}

    def __enter__(self) -> KeyRing:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise SettingsError("a key ring cannot be sent to another process: one at a time holds it")

    # What is in it. Raises SettingsError unless it is open.

    def names(self) -> list[Name]:
        """What there are entries for."""
        with self._lock:
            self._opened()
            return sorted(self._states, key=lambda name: (name.targets, name.model))

    def facts(self, name: Name) -> dict[str, Any]:
        """What may be shown of an entry: no seed, nothing of a seed."""
        with self._lock:
            self._opened()
            state = self._states[name]
            keys = [{"ring": ring, "created": seed.created} for ring, seed in sorted(state.seeds.items())]
            return {
                "scheme": name.scheme,
                "targets": list(name.targets),
                "model": name.model,
                "keys": keys,
                "uploaded": len(state.uploaded),
                "retired": len(state.retired),
                "refusals": state.refusals,
            }

    def entry(self, scheme: str, targets: Sequence[str], model: str) -> Entry:
        """The entry of a model at its targets, for one client at a time; `Entry.close` gives it back."""
        name = Name(scheme, tuple(map(str, targets)), model)
        with self._lock:
            self.open()
            if name in self._taken:
                self.close()
                raise SettingsError(
                    f"key ring {self.path}: a client of this process has the keys of {name}; share that client between threads"
                )
            self._taken.add(name)
            return Entry(name, self, self._states.setdefault(name, State()))

    def give_back(self, entry: Entry) -> None:
        """Called by `Entry.close`."""
        with self._lock:
            self._taken.discard(entry.name)
            self.close()

    def delete(self, name: Name) -> None:
        """Forget an entry, its refusals and its pinned model with it."""
        with self._lock:
            self._opened()
            if name in self._taken:
                raise SettingsError(
                    f"key ring {self.path}: a client of this process has the keys of {name}; close it first"
                )
            with self.saving():
                self._states.pop(name, None)

    @contextmanager
    def saving(self, *, or_ruin: bool = False) -> Iterator[None]:
        """Entries are changed within the block, and on the disk when it is left; raises SettingsError. or_ruin: where that
        fails, nothing is on the disk any more."""
        with self._lock:
            file = self._opened()
            yield
            try:
                file.write(packed(self._states))
            except SettingsError:
                if or_ruin:
                    file.ruin()
                raise

    def begin_anew(self) -> None:
        """Put an empty ring in the file's place, whether that opens or not. Nobody here may have it open."""
        self._require_own()
        with self._lock:
            if self._file is not None:
                raise SettingsError(f"key ring {self.path}: it is open here; close its clients first")
            file = RingFile(self.path, self._secret)
            try:
                file.write(packed({}))
            finally:
                file.close()

    def change_secret(self, *, passphrase: str | None = None, provider: KeyProvider | None = None) -> None:
        """Encrypt it anew, under another passphrase or provider; durable when this returns.

        Copies of the old file still open with the old one: rotate the keys too where it is known to others.
        """
        secret = _one_of(passphrase, provider)
        with self._lock:
            self._opened().change_secret(secret, packed(self._states))
            self._secret = secret

    def _opened(self) -> RingFile:
        self._require_own()
        if self._file is None:
            raise SettingsError(f"key ring {self.path}: it is closed; use it in a `with` block, or by a client")
        return self._file

    def _require_own(self) -> None:
        if self._process != os.getpid():  # before the lock: a fork may have copied it held
            raise SettingsError(
                "this key ring was made before a fork; the parent has it. Give the child a ring of its own"
            )


def _one_of(passphrase: str | None, provider: KeyProvider | None) -> str | KeyProvider:
    if passphrase is not None and provider is None:
        return passphrase
    if provider is not None and passphrase is None:
        return provider
    raise SettingsError("key ring: expected a passphrase or a provider, got both or neither")
