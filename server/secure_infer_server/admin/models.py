"""Models as administrative calls see them, of whatever serves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class ModelStanding:
    """digest: of the version that is served, 32 bytes, or none. reason: why it is not ready, or what is wrong with a newer file.
    earlier: digests of versions that were replaced and are still in use."""

    name: str
    digest: bytes = b""
    ready: bool = False
    reason: str = ""
    earlier: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Reloaded:
    """Names of models; rejected: reasons by name."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    rejected: Mapping[str, str] = field(default_factory=dict)


class Models(Protocol):
    """May wait for a disk, or for plans to be made."""

    def standings(self) -> list[ModelStanding]:
        """By name, those that are not served among them."""

    def reload(self) -> Reloaded:
        """Look at the directory now. Raises a catalogued error where models are never read again."""
