"""The newest signature of each model that was taken, so that an older one is not taken after it.

Without a file that is remembered until the end of the process, with one across restarts. Keep it where whoever can write to
the directory of models cannot. To go back to an older version on purpose, sign it again.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

from secure_infer import whole
from secure_infer.errors import InvalidHead, SettingsError
from secure_infer_server.alone import alone_in


class Serials:
    """Safe to share between threads; servers of one machine may share the file."""

    def __init__(self, path: Path | None = None) -> None:
        """Raises SettingsError for a file that is not what this wrote."""
        self._path, self._lock = path, threading.Lock()
        self._newest: dict[str, int] = {}
        self._learn()

    def newest(self, model: str) -> int:
        """0 where none was taken, by this process or another one of this file. Raises SettingsError."""
        with self._lock:
            self._learn()
            return self._newest.get(model, 0)

    def _learn(self) -> None:
        """What others took, besides what is known here."""
        if self._path is None or not self._path.exists():
            return
        try:
            found = json.loads(self._path.read_bytes())
            if type(found) is not dict or any(type(each) is not int for each in found.values()):
                raise ValueError("entries")
        except (OSError, ValueError, RecursionError):
            raise SettingsError(
                f"--model-serials: {self._path} cannot be read; mend it, or delete it to begin anew, which lets older "
                "versions of models in"
            ) from None
        for model, serial in found.items():
            self._newest[model] = max(serial, self._newest.get(model, 0))

    def keep(self, model: str, serial: int) -> None:
        """From now on, no older one; on disk before this returns. Raises SettingsError where it cannot be written."""
        with self._lock:
            if serial <= self._newest.get(model, 0):
                return
            if self._path is not None:
                try:
                    with alone_in(self._path.parent):  # others that share it add theirs before or after
                        self._learn()
                        serial = max(serial, self._newest.get(model, 0))
                        found = {**self._newest, model: serial}
                        whole.write(self._path, (json.dumps(found, sort_keys=True) + "\n").encode())
                except OSError as error:
                    raise SettingsError(
                        f"--model-serials: {self._path} cannot be written ({error.strerror})"
                    ) from error
            self._newest[model] = serial


def require_newest(model: str, serial: int, newest: int) -> None:
    """Raise InvalidHead for a signature that is older than the newest one that was taken."""
    if serial < newest:
        raise InvalidHead(
            f"model {model!r}: its signature has serial {serial}, a newer one of {newest} was taken before; to go back to "
            "this version, sign it again"
        )
