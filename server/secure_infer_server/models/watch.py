"""A directory that is looked at now and then: files that changed are read, planned and taken over, one after the other.

A file is read once two looks have seen it the same, and again whenever it is not as it was. What cannot be taken over is held
back: the version before stays, and the reason is logged and kept for whoever asks (`Versions.readiness`). A directory that
cannot be read, or that holds no model any more, changes nothing: a mount that went away is no wish to stop.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic, Protocol

from tqdm import tqdm

from secure_infer.errors import InternalFault, SecureInferError
from secure_infer_server.models import aside
from secure_infer_server.models.directory import Found, Stamp, scan, stamp
from secure_infer_server.models.model import Version
from secure_infer_server.models.serials import Serials
from secure_infer_server.models.versions import Versions

log = logging.getLogger(__name__)

_MISSING: Stamp = ()


@dataclass(frozen=True)
class Read(Generic[Version]):
    """What a file holds: its model, None where the digest is that of a version that is known. serial: of its signature; 0
    where none is asked for."""

    digest: bytes
    serial: int
    model: Version | None


class Reader(Protocol[Version]):
    """Reads a file, in whatever process. known: digests of versions that need not be made again; newest: serial of the newest
    signature of that model that was taken. Raises InvalidHead and what else the catalogue has."""

    def __call__(self, file: Path, known: Set[bytes], newest: int) -> Read[Version]: ...


@dataclass
class First(Generic[Version]):
    """What a directory holds at the start: models, and reasons of files that are not served, by name. stamps: of all files;
    serials: of signatures."""

    models: dict[str, Version] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    stamps: dict[str, Stamp] = field(default_factory=dict)
    serials: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(
        cls, files: Mapping[str, Found], read: Reader[Version], serials: Serials, refusals: tuple[type[Exception], ...]
    ) -> First[Version]:
        """In this process. refusals: what is a reason not to serve a file; all else is raised."""
        first = cls()
        for name, found in tqdm(files.items(), desc="planning", unit="model", leave=False, disable=None):
            first.stamps[name] = found.stamp
            try:
                one = read(found.file, frozenset(), serials.newest(name))
            except refusals as refusal:
                first.rejected[name] = refusal.message if isinstance(refusal, SecureInferError) else str(refusal)
                continue
            if one.model is not None:
                first.models[name], first.serials[name] = one.model, one.serial
        return first


class Watch(Generic[Version]):
    """`start` begins to look every `seconds`; `look` looks once. process: read files in a process of its own. taken: serials
    of the signatures of what is served already."""

    def __init__(
        self,
        directory: Path,
        suffixes: tuple[str, ...],
        versions: Versions[Version],
        read: Reader[Version],
        serials: Serials,
        seconds: float,
        *,
        process: bool = True,
        taken: Mapping[str, int] | None = None,
    ) -> None:
        self._directory, self._suffixes, self._versions = directory, suffixes, versions
        self._read, self._serials, self._seconds, self._process = read, serials, seconds, process
        self._taken = dict(taken or {})
        self._settled = dict(versions.stamps)
        self._seen: dict[str, Stamp] = {}  # as the last look found those that are not settled
        self._complaint = ""
        self._looking = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def start(self) -> None:
        """Raises SettingsError where serials cannot be written."""
        for name, serial in self._taken.items():
            self._serials.keep(name, serial)
        if self._seconds:
            self._thread.start()

    def close(self) -> None:
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(self._seconds):
            try:
                self.look()
            except aside.Ended:
                return
            except Exception:
                log.exception("models: a look at the directory failed")

    def look(self) -> None:
        """Take over what has changed and settled, and let go of versions whose time is over. One look at a time."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        self._versions.expire()
        found = self._scan()
        if found is None:
            return
        for name, each in found.items():
            if self._is_settled(name, each.stamp):
                self._take(name, each)
        for name in sorted(self._settled.keys() - found.keys()):
            if self._is_settled(name, _MISSING):
                served = name in self._versions.names()
                self._versions.remove(name)
                del self._settled[name], self._seen[name]
                if served:
                    log.warning("model %s: its file was removed; who pinned it is answered for a while", name)

    def _scan(self) -> dict[str, Found] | None:
        try:
            found = scan(self._directory, self._suffixes)
            complaint = "" if found else f"holds no {' or '.join(f'*{suffix}' for suffix in self._suffixes)} file"
        except OSError as error:
            found, complaint = {}, f"cannot be read ({error.strerror})"
        if complaint and complaint != self._complaint:
            log.error("models: %s %s; what is served stays", self._directory, complaint)
        self._complaint = complaint
        return None if complaint else found

    def _is_settled(self, name: str, now: Stamp) -> bool:
        """Whether it is as the last look found it, and otherwise than when it was read."""
        if now == self._settled.get(name):
            self._seen.pop(name, None)
            return False
        before = self._seen.get(name)
        self._seen[name] = now
        return now == before

    def _take(self, name: str, found: Found) -> None:
        reason = ""
        try:
            file = found.file
            known = frozenset(model.digest for model in self._versions.every() if model.name == name)
            work = partial(self._read, file, known, self._serials.newest(name))
            read = aside.run(work, self._ending) if self._process else work()
            if stamp(found.files) != found.stamp:
                return  # it went on changing: the next looks see to it
            self._adopt(name, read)
        except SecureInferError as error:
            reason = error.message
        except Exception as error:  # a refusal nobody foresaw must not end the watching
            log.exception("model %s: its file could not be read", name)
            reason = f"it could not be read ({type(error).__name__})"
        self._settled[name] = found.stamp
        if reason and stamp(found.files) == found.stamp:
            self._versions.hold_back(name, reason)
            served = "the version before stays" if name in self._versions.held_back else "it is not served"
            log.error("model %s: %s; %s", name, reason, served)

    def _adopt(self, name: str, read: Read[Version]) -> None:
        if read.serial:
            self._serials.keep(name, read.serial)
        if read.model is None:
            self._versions.restore(name, read.digest)
        else:
            if read.model.name != name:
                raise InternalFault(f"models: read {name!r}, got {read.model.name!r}")
            self._versions.replace(read.model)
        log.info("model %s: version %s is served", name, read.digest.hex()[:12])
