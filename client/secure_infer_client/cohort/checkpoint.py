"""Where a run stands, in a file that is replaced as a whole after every chunk; and whether another run may go on from there."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from secure_infer.errors import SettingsError
from secure_infer_client import durable
from secure_infer_client.cohort.rows import Place

VERSION = 1
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """What is durable. job: what the run was asked to do (`Job.facts`). place: where reading goes on. out_bytes,
    rejected_bytes: of the staged files, whatever is behind them is to be cut off. The rest is for the summary: seconds of
    all runs, resumed: runs after the first. complete: nothing is left but to give the files their names. Holds no content."""

    job: dict[str, Any]
    place: Place = field(default_factory=Place)
    out_bytes: int = 0
    rejected_bytes: int = 0
    scored: int = 0
    rejected: int = 0
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    key_bytes: int = 0
    resumed: int = 0
    complete: bool = False
    version: int = field(default=VERSION)

    def save(self, path: Path) -> None:
        durable.replace(path, json.dumps(asdict(self)).encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> Checkpoint | None:
        """The checkpoint in that file, None where there is none; raises SettingsError for anything else."""
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get("version") != VERSION:
            raise SettingsError(f"{path}: is no checkpoint of this version; {ANEW}")
        try:
            return replace(cls(**found), place=Place(**found["place"]))
        except TypeError:
            raise SettingsError(f"{path}: is no checkpoint of this version; {ANEW}") from None

    def check(self, job: dict[str, Any], path: Path) -> None:
        """Raise SettingsError, naming what differs, unless it is of this very job."""
        differing = [name for name in job if self.job.get(name) != job[name]]
        if differing:
            told = ", ".join(
                f"{name} ({_short(self.job.get(name))} then, {_short(job[name])} now)" for name in differing
            )
            raise SettingsError(
                f"{path.name}: the run it belongs to, of which {self.scored} rows are scored, differed in {told}. "
                f"Run the command as it was to go on; {ANEW}"
            )


ANEW = "to start anew give --restart, which removes what that run has written"


def identity(path: Path) -> tuple[int, str]:
    """(bytes, SHA-256) of a file, read as a stream; raises SettingsError."""
    try:
        digest, size = hashlib.sha256(), 0
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
    return size, digest.hexdigest()


def changed_since(path: Path, before: os.stat_result) -> bool:
    """Whether the file was written to, or another is there now."""
    now = path.stat()
    return (now.st_ino, now.st_size, now.st_mtime_ns) != (before.st_ino, before.st_size, before.st_mtime_ns)


def _short(value: Any) -> str:
    text = "–" if value is None else str(value)
    return text if len(text) <= 40 else text[:12] + "…"
