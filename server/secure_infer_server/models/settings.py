"""How a directory of models is watched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from secure_infer.errors import SettingsError

WATCH_SECONDS = 2.0
GRACE_SECONDS = 300.0
KEPT = 2


@dataclass(frozen=True)
class ReloadSettings:
    """watch: seconds between two looks at the directory; 0: models are loaded at the start and never again. grace: seconds
    for which clients that pinned a version are answered after it was replaced or its file removed. kept: such versions of
    one model at most. signers: PEM file of Ed25519 public keys; models that none of them signed are refused. serials: where
    the newest signature of each model is remembered across restarts."""

    watch: float = WATCH_SECONDS
    grace: float = GRACE_SECONDS
    kept: int = KEPT
    signers: Path | None = None
    serials: Path | None = None

    def __post_init__(self) -> None:
        for flag, seconds in (("--reload", self.watch), ("--model-grace", self.grace)):
            if not (math.isfinite(seconds) and seconds >= 0):
                raise SettingsError(f"{flag}: expected seconds, 0 or more, got {seconds:g}")
        if self.kept < 0:
            raise SettingsError(f"--model-versions: expected 0 or more, got {self.kept}")
        if self.serials is not None and self.signers is None:
            raise SettingsError("--model-serials needs --model-signers: unsigned models have no serials")
