"""Clients' keys as evaluation takes them: loaded in this process for plans that the event loop evaluates, bytes for workers.

SEAL loads what was uploaded for a worker's plan in a worker alone, once before it becomes a key at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from secure_infer.ckks.plan import Plan
from secure_infer.errors import InternalFault, PlanRefused, ResourceExhausted
from secure_infer_server.blinds import BlindPool
from secure_infer_server.keys.backend import Backend
from secure_infer_server.keys.names import KeyName, owner_of
from secure_infer_server.keys.screening import check_material
from secure_infer_server.keys.service import KeyCalls
from secure_infer_server.keys.vault import KeyVault, load_client_keys
from secure_infer_server.keystore import ClientKeys
from secure_infer_server.models.registry import Registry
from secure_infer_server.models.served import Offered, OfferedBatch, ServedModel
from secure_infer_server.workers.frames import Header
from secure_infer_server.workers.jobs import Held, Job, OfferName, recipe_of
from secure_infer_server.workers.material import Material
from secure_infer_server.workers.pool import Pool

INLINE_SECONDS = 1.5e-3
"""A query that is estimated to take less is evaluated on the event loop: a worker would add a good part of that again."""
CHECK_RATE = 30e6  # bytes a second of key material that a worker checks and loads, about
CHECK_SECONDS = 120.0  # that an upload waits for a worker at most


class Clients:
    """One server's keys. `vault` holds them, `calls` takes them in.

    memory: bytes of those that are ready for use. loop: the pool's. A plan is evaluated by workers when any model's offer of
    it is: a key is loaded in one way.
    """

    def __init__(
        self,
        registry: Registry,
        blinds: BlindPool,
        pool: Pool,
        backend: Backend,
        memory: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._registry, self._blinds, self._pool, self._loop = registry, blinds, pool, loop
        self._slow: Mapping[bytes, tuple[OfferName, Offered | OfferedBatch]] = {}
        self._at_workers: dict[bytes, bool] = {}
        self.know(registry.every())
        self.vault: KeyVault[ClientKeys | Material] = KeyVault(
            backend, self._load, memory, prove=self._prove, gone=self._gone
        )
        self.calls = KeyCalls(self.vault, registry.plan, self._stored)

    def know(self, models: Iterable[ServedModel]) -> None:
        """These can be asked for from now on, and no others. Where a plan is evaluated stays as it is: its keys are loaded."""
        offers: dict[bytes, tuple[OfferName, Offered | OfferedBatch]] = {}
        for model in models:
            found: dict[bytes, Offered | OfferedBatch] = {**model.offered, **model.batches}
            for digest, offered in found.items():
                if digest not in offers or not _is_quick(offered):
                    offers[digest] = OfferName(model.spec.digest, digest.hex()), offered
        for digest, (_, offered) in offers.items():
            self._at_workers.setdefault(digest, not _is_quick(offered))
        self._slow = {digest: offer for digest, offer in offers.items() if self._at_workers[digest]}

    def inline(self, plan_digest: bytes) -> bool:
        """Whether the plan's queries are evaluated on the event loop."""
        return not self._at_workers.get(plan_digest, False)

    async def loaded(self, caller: str, plan: Plan, digest: bytes) -> tuple[bytes, ClientKeys] | None:
        """A caller's key for a plan that is evaluated here, and what tells it from other callers' equal bytes (32 bytes).

        None when it is not held. Raises MalformedRequest for a digest of another length, ServerUnavailable.
        """
        name, keys = await self._find(caller, plan, digest)
        if isinstance(keys, Material):
            raise InternalFault("keys: expected one that is loaded, got one for workers")
        return None if keys is None else (name.id, keys)

    async def material(self, caller: str, plan: Plan, digest: bytes) -> tuple[Held, Material] | None:
        """A caller's key for a plan that workers evaluate, as they know it; else as `loaded`."""
        name, keys = await self._find(caller, plan, digest)
        if isinstance(keys, ClientKeys):
            raise InternalFault("keys: expected one for workers, got one that is loaded")
        return None if keys is None else (Held(plan.digest, name.id.hex(), keys.data), keys)

    async def _find(self, caller: str, plan: Plan, digest: bytes) -> tuple[KeyName, ClientKeys | Material | None]:
        owner = owner_of(caller)
        keys = self.vault.ready(owner, plan, digest)
        if keys is None:
            keys = await asyncio.to_thread(self.vault.lookup, owner, plan, digest)
        return KeyName(owner, bytes.fromhex(plan.digest), digest), keys

    # On threads.

    def _load(self, plan: Plan, data: bytes) -> tuple[ClientKeys | Material, int]:
        if self.inline(bytes.fromhex(plan.digest)):
            return load_client_keys(plan, data)
        check_material(plan, data)
        material = Material.of(plan, data)
        return material, len(data) + (0 if material.public is None else material.public[0].nbytes)

    def _prove(self, name: KeyName, data: bytes) -> None:
        """Have a worker load what is to become a key for workers, which holds it then; raises what it finds wrong."""
        if self.inline(name.plan):
            return
        if name.plan not in self._slow:
            raise PlanRefused("key: its plan is offered no more; ask for the model's plans again")
        offer, offered = self._slow[name.plan]
        held = Held(offer.plan, name.id.hex(), data)
        header: Header = {"do": "check", "model": offer.model, "plan": offer.plan, "key": held.key}
        header["digest"] = name.digest.hex()
        seconds = 0.1 + len(data) / CHECK_RATE
        job = Job(offer, lambda: recipe_of(offered), None, seconds, lambda: (header, [data]), holds=held)
        proving = asyncio.run_coroutine_threadsafe(self._pool.run(job), self._loop)
        try:
            proving.result(CHECK_SECONDS)
        except TimeoutError:
            proving.cancel()
            raise ResourceExhausted("no worker was free to check the key; ask again shortly", again="shortly") from None

    def _gone(self, name: KeyName) -> None:
        self._blinds.forget(name.plan, name.id)

    def _stored(self, model: str, plan: Plan, name: KeyName, keys: ClientKeys | Material) -> None:
        offered = self._registry.offered(model, name.plan)
        if offered is None:  # batches are compiled, and make their own blinds
            return
        if isinstance(keys, ClientKeys):
            offered.evaluator  # noqa: B018 (compiles the plan, before the first query waits for it)
        if keys.public is not None:
            self._blinds.warm(plan, name.id, keys.public, packed=isinstance(keys, Material))


def _is_quick(offered: Offered | OfferedBatch) -> bool:
    return isinstance(offered, Offered) and offered.seconds <= INLINE_SECONDS
