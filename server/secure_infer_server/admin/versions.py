"""Administrative calls on a directory of models that is watched."""

from __future__ import annotations

import threading
from time import sleep
from typing import Any

from secure_infer_server.admin.models import ModelStanding, Reloaded
from secure_infer_server.models.versions import Versions
from secure_infer_server.models.watch import Watch

SETTLE_SECONDS = 0.25


class WatchedModels:
    """`Models` of `versions`, which `watch` keeps."""

    def __init__(self, versions: Versions[Any], watch: Watch[Any]) -> None:
        self._versions, self._watch = versions, watch
        self._lock = threading.Lock()

    def standings(self) -> list[ModelStanding]:
        versions = self._versions
        found = []
        for name in sorted({model.name for model in versions.every()} | set(versions.rejected)):
            now = versions.readiness(name)
            earlier = tuple(m.digest for m in versions.every() if m.name == name and m.digest != now.digest)
            found.append(ModelStanding(name, now.digest, now.ready, now.reason or now.held_back, earlier))
        return found

    def reload(self) -> Reloaded:
        with self._lock:
            before = self._served()
            # A file is taken over once two looks have found it the same.
            self._watch.look()
            sleep(SETTLE_SECONDS)
            self._watch.look()
            after = self._served()
        return Reloaded(
            tuple(sorted(after.keys() - before.keys())),
            tuple(sorted(name for name in after.keys() & before.keys() if after[name] != before[name])),
            tuple(sorted(before.keys() - after.keys())),
            {**self._versions.rejected, **self._versions.held_back},
        )

    def _served(self) -> dict[str, bytes]:
        return {model.name: model.digest for model in self._versions.models()}
