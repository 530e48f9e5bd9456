"""What every served model has, of whichever scheme, and how it stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from secure_infer.errors import SettingsError


class Model(Protocol):
    """One version of a model."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> bytes:
        """What clients pin, 32 bytes."""

    @property
    def obstacle(self) -> str:
        """Why it cannot be asked although it is served; empty where it can."""

    @property
    def message_bytes(self) -> int:
        """Of the largest message that it needs."""


Version = TypeVar("Version", bound=Model)


@dataclass(frozen=True)
class Readiness:
    """One model. ready: whether it can be asked; reason: why not. digest: of the version that is served, empty without one;
    since: seconds since 1970, when it began to be. earlier: versions before it that are still answered. held_back: why the
    file that is there is not what is served; empty where it is."""

    ready: bool
    digest: bytes
    since: float
    earlier: int
    reason: str
    held_back: str


def digests(models: Iterable[Model]) -> dict[str, list[bytes]]:
    """Of all versions, by name."""
    found: dict[str, list[bytes]] = {}
    for model in models:
        found.setdefault(model.name, []).append(model.digest)
    return found


def require_messages_fit(models: Iterable[Model], most: int) -> None:
    """Raise SettingsError for a version whose messages are larger than the server has taken since it began to listen."""
    for model in models:
        if model.message_bytes > most:
            raise SettingsError(
                f"model {model.name!r} needs messages of {model.message_bytes} bytes, and at most {most} are taken since the "
                "start; start anew to serve this version"
            )
