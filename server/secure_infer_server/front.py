"""Where requests are evaluated: on the event loop when that takes a millisecond or so, else by a worker.

Everything here runs on one event loop and never holds it for longer than one cheap query takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from time import perf_counter

from secure_infer.ckks.plan import QueryPlan
from secure_infer.errors import InternalFault
from secure_infer_server.batches import Batches, Event, KeyNotHeld, allowed_seconds
from secure_infer_server.blinds import BlindPool
from secure_infer_server.dataplane import Dataplane, Inferred, check_count
from secure_infer_server.registry import Offered, OfferedBatch, ServedModel
from secure_infer_server.workers.frames import Header
from secure_infer_server.workers.jobs import Held, Job, OfferName, group, recipe_of, times_of
from secure_infer_server.workers.lane import BatchCall, Lane
from secure_infer_server.workers.material import Material, MaterialStore
from secure_infer_server.workers.pool import Pool
from secure_infer_server.workers.process import WorkerLost

INLINE_SECONDS = 1.5e-3
"""A query that is estimated to take less is evaluated on the event loop: a worker would add a good part of that again."""


CHECK_RATE = 30e6  # bytes a second of key material that a worker checks and loads, about


class Front:
    """One server's evaluation. dataplane: of cheap plans."""

    def __init__(
        self, dataplane: Dataplane, batches: Batches, blinds: BlindPool, pool: Pool, lane: Lane, store: MaterialStore
    ) -> None:
        self.dataplane, self.pool, self.lane = dataplane, pool, lane
        self._batches, self._blinds, self._store = batches, blinds, store
        self._registry = dataplane.registry
        self._ready: set[tuple[bytes, bytes]] = set()

    def start(self) -> None:
        """Start workers, where a model has plans for them."""
        models = [self._registry.get(name) for name in self._registry.names()]
        if any(not inline(offered) for model in models for offered in model.offered.values()):
            self.pool.start()

    async def close(self) -> None:
        await asyncio.gather(self.pool.close(), self.lane.close())

    # Keys.

    async def store_key(self, name: str, plan_digest: bytes, digest: bytes, key: bytes) -> bytes:
        """Check and keep key material; returns its digest. Raises MalformedRequest, SecretKeyReceived or
        ResourceExhausted."""
        model = self._registry.get(name)
        plan = model.plan(plan_digest)
        if not plan.key_bytes or (offered := _slow(model, plan_digest)) is None:
            return await asyncio.to_thread(self.dataplane.store_key, name, plan_digest, digest, key)
        held = Held(plan_digest.hex(), digest.hex(), key)
        offer = OfferName(model.spec.digest, plan_digest.hex())
        header: Header = {"do": "check", "model": offer.model, "plan": offer.plan, "key": held.key}
        job = Job(
            offer,
            lambda: recipe_of(offered),
            None,
            0.1 + len(key) / CHECK_RATE,
            lambda: (header, [key]),
            holds=held,
        )
        await self.pool.run(job)
        material = await asyncio.to_thread(Material.of, plan, key)
        self._store.put(plan_digest, digest, material)
        if isinstance(offered, Offered) and material.public is not None:
            self._blinds.warm(offered.plan, digest, material.public, packed=True)
        return digest

    # Queries.

    async def infer(
        self,
        name: str,
        model_digest: bytes,
        plan_digest: bytes,
        key_digest: bytes,
        queries: Sequence[Sequence[bytes]],
        deadline: float | None = None,
    ) -> Inferred | None:
        """As `Dataplane.infer`. deadline: of the loop's clock. Cancelling ends the work."""
        model = self._registry.get(name)
        model.require(model_digest)
        offered = model.single(plan_digest)
        if not inline(offered):
            return await self._at_worker(model, offered, plan_digest, key_digest, queries, deadline)
        if (model_digest, plan_digest) not in self._ready:  # input-private plans were not compiled by an upload
            await asyncio.to_thread(lambda: offered.evaluator)
            self._ready.add((model_digest, plan_digest))
        evaluation = self.dataplane.begin(name, model_digest, plan_digest, key_digest, len(queries))
        if evaluation is None:
            return None
        for number, query in enumerate(queries):
            if number:
                await asyncio.sleep(0)  # others go on, and a cancelled call ends here
            evaluation.add(query)
        return Inferred(model_digest, evaluation.answers, evaluation.done())

    async def _at_worker(
        self,
        model: ServedModel,
        offered: Offered,
        plan_digest: bytes,
        key_digest: bytes,
        queries: Sequence[Sequence[bytes]],
        deadline: float | None,
    ) -> Inferred | None:
        started = perf_counter()
        plan = offered.plan
        check_count(plan, len(queries))
        material = self._store.get(plan_digest, key_digest) if plan.key_bytes else None
        if plan.key_bytes and material is None:
            return None
        offer = OfferName(model.spec.digest, plan_digest.hex())
        held = None if material is None else Held(offer.plan, key_digest.hex(), material.data)

        def make() -> tuple[Header, list[bytes]]:
            header: Header = {
                "do": "infer",
                "model": offer.model,
                "plan": offer.plan,
                "key": "" if held is None else held.key,
                "queries": [len(query) for query in queries],
            }
            parts = [data for query in queries for data in query]
            return header, parts + self._blinds_for(plan, key_digest, material, len(queries))

        seconds = offered.seconds * len(queries)
        job = Job(offer, lambda: recipe_of(offered), held, seconds, make, deadline)
        header, products = await self.pool.run(job)
        times = times_of(header, perf_counter() - started)
        return Inferred(model.digest, group(header["answers"], products), times)

    def _blinds_for(self, plan: QueryPlan, digest: bytes, material: Material | None, queries: int) -> list[bytes]:
        if material is None or material.public is None:
            return []
        # Blinds made ahead save time where there is time to spare. Where other calls wait, making them here and carrying
        # them over takes more than the worker that needs one.
        refill = not self.pool.waiting()
        return self._blinds.packed(plan, digest, material.public, queries * plan.products, refill=refill)

    # Batches.

    async def batch(
        self,
        name: str,
        model_digest: bytes,
        plan_digest: bytes,
        key_digest: bytes,
        records: int,
        messages: AsyncIterator[list[bytes]],
    ) -> AsyncGenerator[Event, None]:
        """As `Batches.evaluate`. messages raises what ends the batch; each wait for the client is bounded there."""
        offered = self._batches.offered(name, model_digest, plan_digest, records)
        plan = offered.plan
        material = self._store.get(plan_digest, key_digest) if plan.key_bytes else None
        if plan.key_bytes and material is None:
            yield KeyNotHeld()
            return
        offer = OfferName(model_digest.hex(), plan_digest.hex())
        held = None if material is None else Held(offer.plan, key_digest.hex(), material.data)
        with self._batches.place(offered.program.memory):
            try:
                async with self.lane.batch() as call:
                    call.begin(offer, lambda: recipe_of(offered), held, allowed_seconds(offered))
                    async with aclosing(_exchanged(call, messages)) as events:
                        async for event in events:
                            yield event
            except WorkerLost:
                raise InternalFault("the worker of this batch died; it was not answered") from None


async def _exchanged(call: BatchCall, messages: AsyncIterator[list[bytes]]) -> AsyncGenerator[Event, None]:
    """A batch's events while its messages are passed on. What ends the messages early ends the events."""

    async def feed() -> None:
        async for ciphertexts in messages:
            await call.add(ciphertexts)
        call.end()

    feeding = asyncio.get_running_loop().create_task(feed())
    events = aiter(call.events())
    try:
        while True:
            step = asyncio.ensure_future(anext(events, None))
            if not feeding.done():
                await asyncio.wait({step, feeding}, return_when=asyncio.FIRST_COMPLETED)
            if feeding.done() and feeding.exception() is not None and not step.done():
                step.cancel()
                await asyncio.gather(step, return_exceptions=True)
                feeding.result()
            event = await step
            if event is None:
                return
            yield event
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


def inline(offered: Offered) -> bool:
    """Whether its queries are evaluated on the event loop."""
    return offered.seconds <= INLINE_SECONDS


def _slow(model: ServedModel, plan_digest: bytes) -> Offered | OfferedBatch | None:
    """The offer whose keys workers hold; None for plans that are evaluated on the event loop."""
    if plan_digest in model.batches:
        return model.batch(plan_digest)
    offered = model.single(plan_digest)
    return None if inline(offered) else offered
