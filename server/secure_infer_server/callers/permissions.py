"""What a caller may do: the policy, and for administrative calls a one-time code."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secure_infer.errors import PermissionDenied, SecondFactorNeeded
from secure_infer_server.callers.caller import Caller
from secure_infer_server.callers.policy import ADMINISTRATIVE, Policy, canonical, read_policy
from secure_infer_server.callers.second_factor import SecondFactor, SecondFactorSettings
from secure_infer_server.callers.watched import Watched


@dataclass(frozen=True)
class PermissionSettings:
    """policy: the file of rules (`callers.policy`). second_factor: None: administrative calls are refused to everybody.
    administrative: patterns of methods that need it, besides those that the file adds."""

    policy: Path
    second_factor: SecondFactorSettings | None = None
    administrative: tuple[str, ...] = ADMINISTRATIVE


class Permissions:
    """Decides on calls. Thread-safe; the files in `watched` are to be given to a `Watcher`."""

    def __init__(self, settings: PermissionSettings, clock: Callable[[], float] = time.time) -> None:
        """clock: seconds since the epoch. Raises SettingsError for a policy or secrets that cannot be used."""
        self._policy = Watched(
            "policy", lambda: read_policy(settings.policy, settings.administrative), lambda: [settings.policy]
        )
        self._second = None if settings.second_factor is None else SecondFactor(settings.second_factor, clock)

    @property
    def watched(self) -> list[Watched[Any]]:
        return [self._policy] if self._second is None else [self._policy, self._second.watched]

    @property
    def policy(self) -> Policy:
        return self._policy.value

    @property
    def has_second_factor(self) -> bool:
        """Whether administrative calls are possible at all."""
        return self._second is not None

    @property
    def enrolled(self) -> frozenset[str] | None:
        """Identities that have a secret for one-time codes; None: there is no second factor."""
        return None if self._second is None else self._second.enrolled

    def require_some(self, caller: Caller, method: str) -> None:
        """Raise PermissionDenied unless a rule allows the method for some model: before a request is read. Takes no code."""
        if not self.policy.allows_some(caller, method):
            raise PermissionDenied(f"{canonical(method)}: not allowed to {caller.identity} by the operator's policy")

    def require(self, caller: Caller, method: str, model: str | None = None) -> None:
        """Raise PermissionDenied unless a rule allows the call, then SecondFactorNeeded unless an administrative one brings a
        code. A code is not used up by a call that no rule allows. method: "KeyService/UploadKeys", or gRPC's full name."""
        policy = self.policy
        if not policy.allows(caller, method, model):
            raise PermissionDenied(
                f"{canonical(method)}: not allowed to {caller.identity} by the operator's policy, or not for this model"
            )
        if not policy.is_administrative(method):
            return
        if self._second is None:
            raise SecondFactorNeeded("second factor: this server has none set up, so administrative calls are off")
        self._second.require(caller.identity, caller.code)
