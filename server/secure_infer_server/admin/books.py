"""What a gate with a policy and a second factor keeps, as administrative calls see it.

There are books where both are set up, and no administrative calls where there are none: never on an open gate.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from secure_infer.errors import MalformedRequest, SecondFactorNeeded
from secure_infer_server.audit.log import AuditLog, Standing
from secure_infer_server.budgets import Allowance, Budgets
from secure_infer_server.callers.policy import KINDS, Policy, is_identity

LONGEST_IDENTITY = 1024
MOST_RECORDS = 1 << 40
"""Of one debit: many of them stay what SQLite can count."""


@dataclass(frozen=True)
class Debit:
    """What one identity was debited for one version of a model. model: its name, or "" where that is not served."""

    identity: str
    model: str
    digest: bytes
    total: int
    today: int
    allowance: Allowance


class Books:
    """Waits for a disk now and then. served: digests of the versions that are answered, by name, as of now."""

    def __init__(
        self,
        policy: Callable[[], Policy],
        budgets: Budgets | None,
        audit: AuditLog | None,
        served: Callable[[], Mapping[str, Collection[bytes]]],
    ) -> None:
        self._policy, self._budgets, self._audit, self._served = policy, budgets, audit, served

    def require_second_factor(self, method: str) -> None:
        """Raise SecondFactorNeeded unless the gate asks for a code before it admits that method: a policy that was told
        otherwise opens nothing."""
        if not self._policy().is_administrative(method):
            raise SecondFactorNeeded("second factor: this server's policy asks for none here, so the call is refused")

    def standing(self) -> Standing | None:
        """Of the audit log; None where it is off."""
        return None if self._audit is None else self._audit.standing

    @property
    def counts(self) -> bool:
        """Whether queries are counted at all."""
        return self._budgets is not None

    def debits(self, identity: str | None, most: int) -> list[Debit]:
        """Of one identity or of all, at most so many, the largest totals first."""
        if self._budgets is None:
            return []
        names = {digest: name for name, digests in self._served().items() for digest in digests}
        return [
            Debit(who, names.get(model, ""), model, used.total, used.day, self._budgets.allowance(model))
            for (who, model), used in self._budgets.debits(identity, most)
        ]

    def reset(self, identity: str, model: str) -> int:
        """Set an identity's debits back to nothing, for one served model or, with "", for all; returns for how many.

        Raises MalformedRequest, BudgetUnavailable.
        """
        budgets, served = self._counted(identity), self._served()
        if model and model not in served:
            raise MalformedRequest(f"{_unknown(model, served)}, or none for all")
        versions = served[model] if model else (None,)
        return sum(budgets.reset(identity, version) for version in versions)

    def debit(self, identity: str, model: str, records: int, *, today: bool = False) -> list[Debit]:
        """Count records, of the total and perhaps of today, that the ledger does not know of, for each version of a served model
        that is answered; returns how these stand. Raises MalformedRequest, BudgetUnavailable."""
        budgets, served = self._counted(identity), self._served()
        if model not in served:
            raise MalformedRequest(_unknown(model, served))
        if not 1 <= records <= MOST_RECORDS:
            raise MalformedRequest(f"budgets: expected 1 to {MOST_RECORDS} records, got {records}")
        if not is_identity(identity) or len(identity) > LONGEST_IDENTITY:
            raise MalformedRequest(f"budgets: expected an identity that begins with {', '.join(KINDS)}")
        budgets.debit(identity, served[model], records, today=today)
        found = []
        for digest in served[model]:
            used = budgets.used(identity, digest)
            found.append(Debit(identity, model, digest, used.total, used.day, budgets.allowance(digest)))
        return found

    def _counted(self, identity: str) -> Budgets:
        if self._budgets is None:
            raise MalformedRequest("budgets: this server counts nothing")
        if not identity:
            raise MalformedRequest("budgets: expected an identity, got none")
        return self._budgets


def _unknown(model: str, served: Collection[str]) -> str:
    return f"budgets: {model[:64]!r} is not served; expected one of {', '.join(sorted(served))}"
