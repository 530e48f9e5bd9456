"""AdminService without gRPC: messages in, messages out. Names, digests, sizes, times and counts; never content."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from secure_infer.errors import MalformedRequest
from secure_infer.v1 import admin_pb2
from secure_infer_server.admin.books import Books, Debit
from secure_infer_server.admin.models import Models
from secure_infer_server.keys.names import HeldKey

SERVICE = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name
MOST = 1000
"""Keys or budgets in one answer."""
PREFIX_BYTES = 6
"""Of a key's digest, in answers: tells keys apart, and is no key's name."""
LEAST_PREFIX, MAX_PREFIXES = 4, 1024


class Keys(Protocol):
    """As `KeyVault` keeps them."""

    def held(self, owner: str | None) -> list[HeldKey]:
        """One identity's, or everybody's; least recently used first."""

    def delete(self, owner: str, keys: Iterable[tuple[bytes, bytes]] | None = None) -> int:
        """Drop an identity's, by plan digest and key digest, or all; how many there were."""


class AdminCalls:
    """Every method may wait for a disk. keys: None where a server holds none, as a party."""

    def __init__(self, books: Books, models: Models, keys: Keys | None = None) -> None:
        self.books, self._models, self._keys = books, models, keys

    def list_held_keys(self, request: admin_pb2.ListHeldKeysRequest) -> admin_pb2.ListHeldKeysResponse:
        """Raises MalformedRequest."""
        keys = self._held(request.owner or None)
        return admin_pb2.ListHeldKeysResponse(
            keys=[
                admin_pb2.KeySummary(
                    owner=key.name.owner,
                    model=key.model,
                    key_prefix=key.name.digest[:PREFIX_BYTES],
                    size=key.size,
                    used=int(key.used),
                )
                for key in keys[: _limit(request.limit)]
            ],
            count=len(keys),
            size=sum(key.size for key in keys),
        )

    def delete_held_keys(self, request: admin_pb2.DeleteHeldKeysRequest) -> admin_pb2.DeleteHeldKeysResponse:
        """Raises MalformedRequest."""
        prefixes = tuple(request.key_prefixes)
        if request.all == bool(prefixes) or len(prefixes) > MAX_PREFIXES:
            raise MalformedRequest(f"keys: expected `all` or 1 to {MAX_PREFIXES} prefixes, got {len(prefixes)} of them")
        if any(not LEAST_PREFIX <= len(prefix) <= 32 for prefix in prefixes):
            raise MalformedRequest(f"keys: expected prefixes of {LEAST_PREFIX} to 32 bytes")
        held = self._held(request.owner)
        names = [(key.name.plan, key.name.digest) for key in held if key.name.digest.startswith(prefixes or (b"",))]
        keys = self._require_keys()
        return admin_pb2.DeleteHeldKeysResponse(deleted=keys.delete(request.owner, None if request.all else names))

    def list_served_models(self, request: admin_pb2.ListServedModelsRequest) -> admin_pb2.ListServedModelsResponse:
        found = [
            admin_pb2.ModelStatus(
                name=model.name, digest=model.digest, ready=model.ready, reason=model.reason, earlier=model.earlier
            )
            for model in self._models.standings()
        ]
        return admin_pb2.ListServedModelsResponse(models=found)

    def reload_models(self, request: admin_pb2.ReloadModelsRequest) -> admin_pb2.ReloadModelsResponse:
        """Raises what `Models.reload` raises."""
        found = self._models.reload()
        return admin_pb2.ReloadModelsResponse(
            added=found.added, changed=found.changed, removed=found.removed, rejected=dict(found.rejected)
        )

    def get_audit_status(self, request: admin_pb2.GetAuditStatusRequest) -> admin_pb2.GetAuditStatusResponse:
        found = self.books.standing()
        if found is None:
            return admin_pb2.GetAuditStatusResponse()
        head, checkpoint = (
            admin_pb2.AuditPosition(sequence=sequence, hash=digest)
            for sequence, digest in (found.head, found.checkpoint)
        )
        return admin_pb2.GetAuditStatusResponse(
            on=True, head=head, checkpoint=checkpoint, key=found.key, waiting=found.waiting, failure=found.failure
        )

    def list_budgets(self, request: admin_pb2.ListBudgetsRequest) -> admin_pb2.ListBudgetsResponse:
        """Raises BudgetUnavailable."""
        found = self.books.debits(request.identity or None, _limit(request.limit))
        return admin_pb2.ListBudgetsResponse(on=self.books.counts, budgets=map(_status, found))

    def reset_budgets(self, request: admin_pb2.ResetBudgetsRequest) -> admin_pb2.ResetBudgetsResponse:
        """Raises MalformedRequest, BudgetUnavailable."""
        return admin_pb2.ResetBudgetsResponse(reset=self.books.reset(request.identity, request.model))

    def debit_budgets(self, request: admin_pb2.DebitBudgetsRequest) -> admin_pb2.DebitBudgetsResponse:
        """Raises MalformedRequest, BudgetUnavailable."""
        found = self.books.debit(request.identity, request.model, request.records, today=request.today)
        return admin_pb2.DebitBudgetsResponse(budgets=map(_status, found))

    def _held(self, owner: str | None) -> list[HeldKey]:
        return self._require_keys().held(owner)

    def _require_keys(self) -> Keys:
        if self._keys is None:
            raise MalformedRequest("keys: this process holds none of clients'; ask a server of encrypted queries")
        return self._keys


METHODS: dict[str, tuple[Any, Callable[..., object]]] = {
    name: (getattr(admin_pb2, f"{name}Request"), call)
    for name, call in (
        ("ListHeldKeys", AdminCalls.list_held_keys),
        ("DeleteHeldKeys", AdminCalls.delete_held_keys),
        ("ListServedModels", AdminCalls.list_served_models),
        ("ReloadModels", AdminCalls.reload_models),
        ("GetAuditStatus", AdminCalls.get_audit_status),
        ("ListBudgets", AdminCalls.list_budgets),
        ("ResetBudgets", AdminCalls.reset_budgets),
        ("DebitBudgets", AdminCalls.debit_budgets),
    )
}
"""Methods by name: the request's type, and what answers it."""


def _limit(asked: int) -> int:
    return min(asked or MOST, MOST)


def _status(debit: Debit) -> admin_pb2.BudgetStatus:
    return admin_pb2.BudgetStatus(
        identity=debit.identity,
        model_digest=debit.digest,
        model=debit.model,
        total=debit.total,
        today=debit.today,
        total_allowed=debit.allowance.total,
        daily_allowed=debit.allowance.daily,
    )
