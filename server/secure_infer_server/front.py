"""Where requests are evaluated: on the event loop when that takes a millisecond or so, else by a worker.

Everything here runs on one event loop and never holds it for longer than one cheap query takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from time import perf_counter

from secure_infer.ckks.plan import QueryPlan
from secure_infer.errors import InternalFault, ModelChanged, UnknownModel
from secure_infer_server.batches import Batches, BatchTimes, Event, KeyNotHeld, allowed_seconds
from secure_infer_server.blinds import BlindPool
from secure_infer_server.budgets import batch_capacity
from secure_infer_server.clients import Clients
from secure_infer_server.dataplane import Dataplane, Inferred, Times, check_count
from secure_infer_server.models.served import Offered, ServedModel
from secure_infer_server.observe import calls
from secure_infer_server.turns import Turns
from secure_infer_server.workers.frames import Header
from secure_infer_server.workers.jobs import Held, Job, OfferName, group, recipe_of, times_of
from secure_infer_server.workers.lane import BatchCall, Lane
from secure_infer_server.workers.material import Material
from secure_infer_server.workers.pool import Pool
from secure_infer_server.workers.process import WorkerLost


class Front:
    """One server's evaluation. dataplane: of cheap plans. A key is its caller's alone; see `Clients`."""

    def __init__(
        self, dataplane: Dataplane, batches: Batches, blinds: BlindPool, pool: Pool, lane: Lane, clients: Clients
    ) -> None:
        self.dataplane, self.pool, self.lane, self.clients = dataplane, pool, lane, clients
        self._batches, self._blinds = batches, blinds
        self._registry = dataplane.registry
        self.turns = Turns()
        self._workers_alone = False  # no plan is evaluated here
        self._offers: frozenset[OfferName] = frozenset()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Start workers, where a model has plans for them."""
        self._loop = asyncio.get_running_loop()
        if not all(self.clients.inline(plan) for model in self._registry.models() for plan in model.offered):
            self.pool.start()

    def know(self, models: Sequence[ServedModel]) -> None:
        """These can be asked for from now on, and no others. For any thread."""
        self.clients.know(models)
        offers = frozenset(OfferName(model.spec.digest, plan.digest) for model in models for plan in model.plans)
        gone, self._offers = self._offers - offers, offers
        self._workers_alone = not any(self.clients.inline(plan) for model in models for plan in model.offered)
        if self._loop is None:
            return
        for quick in [offered for model in models for d, offered in model.offered.items() if self.clients.inline(d)]:
            quick.evaluator  # noqa: B018 (compiled before anybody waits for it)
        if gone:
            self._blinds.keep({offer.plan for offer in offers})
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._withdraw, gone)

    def _withdraw(self, offers: frozenset[OfferName]) -> None:
        self.pool.withdraw(offers)
        self.lane.withdraw(offers)

    async def close(self) -> None:
        await asyncio.gather(self.pool.close(), self.lane.close())

    # Queries.

    def require_room(self, caller: str, name: str = "", plan_digest: bytes = b"", queries: int = 1) -> None:
        """Raise ResourceExhausted where a call could not be taken now: before it costs anything. What it asks for may not be
        known yet: it is refused then where the event loop has all it can do, and where workers are full that do everything."""
        offered = self._offered(name, plan_digest)
        if self._workers_alone or (offered is not None and not self.clients.inline(plan_digest)):
            self.pool.require_room(caller)
        self.turns.require_room(caller, queries * (0.0 if offered is None else offered.seconds))

    def _offered(self, name: str, plan_digest: bytes) -> Offered | None:
        return self._registry.offered(name, plan_digest) if plan_digest else None

    async def infer(
        self,
        caller: str,
        name: str,
        model_digest: bytes,
        plan_digest: bytes,
        key_digest: bytes,
        queries: Sequence[Sequence[bytes]],
        deadline: float | None = None,
    ) -> Inferred | None:
        """Evaluate queries; None when this caller's key is not held, which the client mends.

        deadline: of the loop's clock. Cancelling ends the work. Raises UnknownModel, ModelChanged, PlanRefused,
        MalformedRequest, SecretKeyReceived, and what `Pool.run` raises.
        """
        model = self._registry.version(name, model_digest)
        offered = model.single(plan_digest)
        check_count(offered.plan, len(queries))
        if not self.clients.inline(plan_digest):
            return await self._at_worker(caller, model, offered, key_digest, queries, deadline)
        key = None
        if offered.plan.key_bytes:
            key = await self.clients.loaded(caller, offered.plan, key_digest)
            if key is None:
                return None
        if not offered.compiled:  # no upload compiled it
            await asyncio.to_thread(lambda: offered.evaluator)
        evaluation = self.dataplane.begin(offered, key)
        for number, query in enumerate(queries):
            # What is left of the call waits as a whole; once begun, it is not turned away.
            await self.turns.take(caller, offered.seconds, len(queries) - number - 1, accepted=number > 0)
            try:
                evaluation.add(query)
            finally:
                self.turns.give()
        times = evaluation.done()
        _observe(offered.plan, times)
        return Inferred(model_digest, evaluation.answers, times)

    async def _at_worker(
        self,
        caller: str,
        model: ServedModel,
        offered: Offered,
        key_digest: bytes,
        queries: Sequence[Sequence[bytes]],
        deadline: float | None,
    ) -> Inferred | None:
        started = perf_counter()
        plan = offered.plan
        held: Held | None = None
        material: Material | None = None
        if plan.key_bytes:
            found = await self.clients.material(caller, plan, key_digest)
            if found is None:
                return None
            held, material = found
        offer = OfferName(model.spec.digest, plan.digest)

        def make() -> tuple[Header, list[bytes]]:
            header: Header = {
                "do": "infer",
                "model": offer.model,
                "plan": offer.plan,
                "key": "" if held is None else held.key,
                "queries": [len(query) for query in queries],
            }
            parts = [data for query in queries for data in query]
            return header, parts + self._blinds_for(plan, held, material, len(queries))

        seconds = offered.seconds * len(queries)
        job = Job(offer, lambda: recipe_of(offered), held, seconds, make, deadline, caller=caller)
        header, products = await self.pool.run(job)
        times = times_of(header, perf_counter() - started)
        _observe(plan, times)
        return Inferred(model.digest, group(header["answers"], products), times)

    def _blinds_for(self, plan: QueryPlan, held: Held | None, material: Material | None, queries: int) -> list[bytes]:
        if held is None or material is None or material.public is None:
            return []
        # Blinds made ahead save time where there is time to spare. Where other calls wait, making them here and carrying
        # them over takes more than the worker that needs one.
        refill = not self.pool.waiting()
        key = bytes.fromhex(held.key)
        return self._blinds.packed(plan, key, material.public, queries * plan.products, refill=refill)

    # Batches.

    def batch_capacity(self, name: str, model_digest: bytes, plan_digest: bytes) -> int:
        """Records that a batch of that plan counts as; 0 for one that is not offered, which `batch` refuses."""
        with suppress(UnknownModel, ModelChanged):
            offered = self._registry.version(name, model_digest).batches.get(plan_digest)
            return 0 if offered is None else batch_capacity(offered.plan)
        return 0

    async def batch(
        self,
        caller: str,
        name: str,
        model_digest: bytes,
        plan_digest: bytes,
        key_digest: bytes,
        records: int,
        messages: AsyncIterator[list[bytes]],
    ) -> AsyncGenerator[Event, None]:
        """The events of one batch, as `evaluate_batch`; `KeyNotHeld` alone when this caller's key is not held.

        messages raises what ends the batch; each wait for the client is bounded there. Raises besides what `infer` raises
        ResourceExhausted when as many batches as may be are under way.
        """
        offered = self._batches.offered(name, model_digest, plan_digest, records)
        plan = offered.plan
        held: Held | None = None
        if plan.key_bytes:
            found = await self.clients.material(caller, plan, key_digest)
            if found is None:
                yield KeyNotHeld()
                return
            held, _ = found
        offer = OfferName(model_digest.hex(), plan_digest.hex())
        with self._batches.place(offered.program.memory):
            try:
                async with self.lane.batch() as call:
                    call.begin(offer, lambda: recipe_of(offered), held, allowed_seconds(offered))
                    async with aclosing(_exchanged(call, messages)) as events:
                        async for event in events:
                            if isinstance(event, BatchTimes):
                                times = (event.load, event.evaluate, event.blind, 0, event.blinds)
                                calls.current().evaluation(plan.kind, *times)
                            yield event
            except WorkerLost:
                raise InternalFault("the worker of this batch died; it was not answered") from None


def _observe(plan: QueryPlan, times: Times) -> None:
    stages = (times.load, times.evaluate, times.blind)
    calls.current().evaluation(plan.kind, *stages, times.blinds_ready, times.blinds_inline)


async def _exchanged(call: BatchCall, messages: AsyncIterator[list[bytes]]) -> AsyncGenerator[Event, None]:
    """A batch's events while its messages are passed on. What ends the messages early ends the events."""

    async def feed() -> None:
        async for ciphertexts in messages:
            await call.add(ciphertexts)
        call.end()

    feeding: asyncio.Task[None] = asyncio.get_running_loop().create_task(feed())
    step: asyncio.Future[Event | None] | asyncio.Task[None] = feeding
    events = aiter(call.events())
    try:
        while True:
            step = asyncio.ensure_future(anext(events, None))
            if not feeding.done():
                await asyncio.wait({step, feeding}, return_when=asyncio.FIRST_COMPLETED)
            if feeding.done() and feeding.exception() is not None and not step.done():
                feeding.result()
            event = await step
            if event is None:
                return
            yield event
    finally:  # also when this is cancelled: a step that went on would take the worker's last frame
        for task in (feeding, step):
            task.cancel()
        await asyncio.gather(feeding, step, return_exceptions=True)
