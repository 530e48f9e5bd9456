"""What the dealer knows between the meeting of two parties and the parting of either: credits, turns, weight masks.

An epoch belongs to one stream of each party and ends with the first that ends, so that nothing carries over: not a credit,
not a mask, not a bundle. Not for several threads at once, but for `masks`, which the one that deals calls alone.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from dataclasses import dataclass, field

from secure_infer.errors import CorrelationMisuse, MalformedRequest, ResourceExhausted
from secure_infer.mpc import masks
from secure_infer.mpc.correlations import ID_BYTES, Recipe
from secure_infer.mpc.ring import Matrix
from secure_infer.mpc.streams import fresh_key
from secure_infer.v1 import mpc_pb2
from secure_infer_server.mpc import recipes
from secure_infer_server.mpc.seats import Seat

MAX_RECIPES = 1024
MAX_PROGRAMS = 256


@dataclass
class Order:
    """A recipe and what each party has room for. due: see `Epoch.next`. refused: it cannot be dealt in this epoch."""

    recipe: Recipe
    credits: list[int] = field(default_factory=lambda: [0, 0])
    due: int = 0
    refused: bool = False

    @property
    def idle(self) -> bool:
        return not any(self.credits)

    @property
    def ready(self) -> bool:
        return all(self.credits) and not self.refused


class Epoch:
    """Dealings for the parties at two seats, of party 0 and of party 1."""

    def __init__(self, seats: tuple[Seat, Seat]) -> None:
        self.id = os.urandom(ID_BYTES)
        self.seats = seats
        self.orders: OrderedDict[bytes, Order] = OrderedDict()
        self.mask_bytes = 0
        self._masks: dict[str, dict[int, Matrix]] = {}
        self._clock = 0
        for seat in seats:
            seat.send(mpc_pb2.DealResponse(epoch=mpc_pb2.DealEpoch(id=self.id)))

    def want(self, party: int, data: bytes, count: int) -> None:
        """Add room for `count` bundles of a recipe, in canonical JSON. Raises MalformedRequest or ResourceExhausted."""
        digest = hashlib.sha256(data).digest()
        order = self.orders.get(digest)
        if order is None:
            order = Order(recipes.foreign(data))
            self._make_room()
            self.orders[digest] = order
        self.orders.move_to_end(digest)
        if not 1 <= count <= recipes.MAX_CREDITS - order.credits[party]:
            raise MalformedRequest(
                f"want: {count} bundles more than {order.credits[party]} outstanding; expected 1 to {recipes.MAX_CREDITS} in all"
            )
        was_ready = order.ready
        order.credits[party] += count
        if order.ready and not was_ready:
            order.due = self._clock + order.recipe.words(1)

    def _make_room(self) -> None:
        """Forget the recipe that was asked for longest ago and is not waited for; raises ResourceExhausted."""
        if len(self.orders) < MAX_RECIPES:
            return
        idle = next((digest for digest, order in self.orders.items() if order.idle), None)
        if idle is None:
            raise ResourceExhausted(f"recipes: {MAX_RECIPES} are waited for already")
        del self.orders[idle]

    def next(self) -> Order | None:
        """The order that is dealt next, its credits taken; None while no recipe has credit at both parties, or a seat is full.

        Turns go by self-clocked fair queueing (Golestani, INFOCOM 1994): recipes share the dealer's time by words, not by
        bundles. A recipe of 1,000 words and one of 4,000, both wanted: four of the first, one of the second, and so on.
        """
        ready = [order for order in self.orders.values() if order.ready]
        if not ready or any(seat.full for seat in self.seats):
            return None
        order = min(ready, key=lambda order: order.due)
        self._clock = order.due
        order.due += order.recipe.words(1)
        order.credits = [credit - 1 for credit in order.credits]
        return order

    def masks(self, recipe: Recipe) -> dict[int, Matrix]:
        """The weight masks of the recipe's program; new ones are sent to the parties first, as seeds.

        Raises CorrelationMisuse when the program's masks have other shapes, ResourceExhausted when there are too many.
        """
        shapes = recipe.tensors()
        if not shapes:
            return {}
        if recipe.program not in self._masks:
            self._masks[recipe.program] = self._fresh(recipe)
        found = self._masks[recipe.program]
        if {tensor: mask.shape for tensor, mask in found.items()} != shapes:
            raise CorrelationMisuse(
                f"recipe: program {recipe.program[:12]}… has weight masks of other shapes in this epoch"
            )
        return found

    def _fresh(self, recipe: Recipe) -> dict[int, Matrix]:
        shapes = recipe.tensors()
        size = masks.mask_bytes(shapes)
        if self.mask_bytes + size > recipes.MAX_MASK_BYTES or len(self._masks) >= MAX_PROGRAMS:
            raise ResourceExhausted(
                f"weight masks: {self.mask_bytes} bytes of {len(self._masks)} programs are kept already"
            )
        self.mask_bytes += size
        program = recipes.program_key(recipe)
        seeds = fresh_key(), fresh_key()
        for seat, seed in zip(self.seats, seeds, strict=True):
            seat.send(mpc_pb2.DealResponse(masks=mpc_pb2.DealMasks(program=program, seed=seed)))
        first, second = (masks.expand(seed, shapes) for seed in seeds)
        return {tensor: Matrix(first[tensor] + second[tensor]) for tensor in shapes}
