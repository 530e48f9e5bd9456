"""Models by name and by digest: replaced in one step, the versions before kept for a while.

Readers take no lock: all they see is one value that is replaced as a whole. Whoever has to know what can be asked for
(`listen`) is told before a version can be, and again when it no longer can: at no moment is a version answered that a
listener does not know.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic

from secure_infer.errors import ModelChanged, UnknownModel
from secure_infer_server.models.directory import Stamp
from secure_infer_server.models.model import Readiness, Version

NAMED = 8
"""Models that an error names at most."""


Listener = Callable[[Sequence[Version]], None]
"""Told every version that can be asked for, those of one name newest first; raises SettingsError for one that does not fit."""


@dataclass(frozen=True)
class _Before(Generic[Version]):
    model: Version
    until: float


@dataclass(frozen=True)
class _State(Generic[Version]):
    """before: versions no longer current, by name, newest first. known: all, by name and digest."""

    current: Mapping[str, Version]
    since: Mapping[str, float]
    before: Mapping[str, tuple[_Before[Version], ...]] = field(default_factory=dict)
    known: Mapping[tuple[str, bytes], Version] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", {(model.name, model.digest): model for model in self.every()})

    def every(self) -> list[Version]:
        found: list[Version] = []
        for name in {**self.current, **self.before}:
            found += [self.current[name]] if name in self.current else []
            found += [each.model for each in self.before.get(name, ())]
        return found


class Versions(Generic[Version]):
    """rejected: reasons of files that are not served, by name; such a file never takes down the others."""

    def __init__(
        self,
        models: Mapping[str, Version],
        rejected: Mapping[str, str],
        *,
        grace: float = 0.0,
        kept: int = 0,
        stamps: Mapping[str, Stamp] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """grace, kept: see `ReloadSettings`. stamps: of the files as they were when they were read."""
        self.stamps = dict(stamps or {})
        self._grace, self._kept, self._clock = grace, kept, clock
        self._state: _State[Version] = _State(dict(models), dict.fromkeys(models, time.time()))
        self._reasons = dict(rejected)
        self._listeners: list[Listener[Version]] = []
        self._lock = threading.Lock()

    # What is served.

    def names(self) -> list[str]:
        return sorted(self._state.current)

    def models(self) -> list[Version]:
        """Those that are served, by name."""
        return [model for _, model in sorted(self._state.current.items())]

    def every(self) -> list[Version]:
        """Those, and versions before them that are still answered."""
        return self._state.every()

    @property
    def rejected(self) -> dict[str, str]:
        """Reasons of files that are there and not served in any version, by name."""
        current = self._state.current
        return {name: reason for name, reason in sorted(self._reasons.items()) if name not in current}

    @property
    def held_back(self) -> dict[str, str]:
        """Reasons of files that are there and not served, while an earlier version is, by name."""
        current = self._state.current
        return {name: reason for name, reason in sorted(self._reasons.items()) if name in current}

    def get(self, name: str) -> Version:
        """The model as it is offered now; raises UnknownModel, naming some that are served."""
        found = self._state.current.get(name)
        if found is not None:
            return found
        if name in self._reasons:
            raise UnknownModel(f"model {name!r} is not served: {self._reasons[name]}")
        names = self.names()
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        raise UnknownModel(f"unknown model {name[:64]!r}; served: {', '.join(names[:NAMED]) or 'none'}{more}")

    def version(self, name: str, digest: bytes) -> Version:
        """The version that a client pinned, current or kept; raises UnknownModel or ModelChanged."""
        found = self._state.known.get((name, digest))
        if found is not None:
            return found
        raise ModelChanged(
            f"model {name!r}: the client pinned {digest[:6].hex()}…, served is {self.get(name).digest[:6].hex()}…"
        )

    def versions(self, name: str) -> list[Version]:
        """All versions of a model that are answered, newest first; raises UnknownModel where there is none."""
        state = self._state
        before = [each.model for each in state.before.get(name, ())]
        return [state.current[name], *before] if name in state.current else before or [self.get(name)]

    def readiness(self, name: str) -> Readiness:
        """Raises UnknownModel for a name that has neither a version nor a file."""
        state, reason = self._state, self._reasons.get(name, "")
        earlier = len(state.before.get(name, ()))
        model = state.current.get(name)
        if model is None:
            if not (reason or earlier):
                self.get(name)
            return Readiness(False, b"", 0.0, earlier, reason or "its file was removed", "")
        return Readiness(
            not model.obstacle,
            model.digest,
            state.since[name],
            earlier,
            "" if not model.obstacle else model.obstacle,
            reason,
        )

    # What changes it.

    def listen(self, listener: Listener[Version]) -> None:
        """Tell it what can be asked for, now and from now on. Raises what it raises."""
        listener(self.every())
        self._listeners.append(listener)

    def replace(self, model: Version) -> None:
        """Serve that version from now on, and keep the one before. Raises SettingsError where a listener does; nothing is
        changed then."""
        with self._lock:
            state = self._state
            before = {each.model.digest: each for each in self._retired(model.name)}
            before.pop(model.digest, None)
            self._become(
                _State(
                    {**state.current, model.name: model},
                    {**state.since, model.name: time.time()},
                    {**state.before, model.name: tuple(before.values())[: self._kept]},
                )
            )
            self._reasons.pop(model.name, None)

    def restore(self, name: str, digest: bytes) -> None:
        """The file is of a version that is here: serve that one."""
        found = self._state.known[name, digest]
        if self._state.current.get(name) is not found:
            self.replace(found)
        self._reasons.pop(name, None)

    def remove(self, name: str) -> None:
        """Offer the model to nobody any more; who pinned it is answered for the time of grace."""
        with self._lock:
            state = self._state
            self._become(
                _State(
                    {other: model for other, model in state.current.items() if other != name},
                    {other: since for other, since in state.since.items() if other != name},
                    {**state.before, name: self._retired(name)[: self._kept]},
                )
            )
            self._reasons.pop(name, None)

    def hold_back(self, name: str, reason: str) -> None:
        """The file of that name is not served; what is served under it stays."""
        self._reasons[name] = reason

    def expire(self) -> None:
        """Let go of versions whose time is over."""
        now = self._clock()
        with self._lock:
            state = self._state
            if any(each.until <= now for kept in state.before.values() for each in kept):
                self._become(_State(state.current, state.since, state.before))

    def _retired(self, name: str) -> tuple[_Before[Version], ...]:
        """What is kept of a model whose current version goes."""
        current = self._state.current.get(name)
        newest = () if current is None else (_Before(current, self._clock() + self._grace),)
        return (*newest, *self._state.before.get(name, ()))

    def _become(self, state: _State[Version]) -> None:
        """Tell of what is new, change, tell of what is gone. The lock is held."""
        now, old = self._clock(), self._state
        alive = {
            name: tuple(each for each in kept if each.until > now)
            for name, kept in state.before.items()
            if any(each.until > now for each in kept)
        }
        new = _State(state.current, state.since, alive)
        gone = [model for key, model in old.known.items() if key not in new.known]
        try:
            self._tell([*new.every(), *gone])
        except Exception:
            self._tell(old.every())
            raise
        self._state = new
        self._tell(new.every())

    def _tell(self, models: Sequence[Version]) -> None:
        for listener in self._listeners:
            listener(models)
