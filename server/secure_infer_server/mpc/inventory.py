"""Everything a party holds from its dealer: stocks of bundles, seeds of weight masks, what was asked for and what is gone.

No threads and no waiting: `stores` adds these. Party 0's room decides how much is dealt. Party 1 asks for as many as it was
sent, whether they were claimed or not: bundles whose requests never reached it, on a link that broke, must not count as a
full store, or both would wait for each other for good. It drops those that newer claims have passed, and the oldest when
memory ends.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from secure_infer.errors import MalformedRequest, ResourceExhausted
from secure_infer.mpc.correlations import ID_BYTES, Recipe
from secure_infer.mpc.streams import KEY_BYTES
from secure_infer.v1 import mpc_pb2
from secure_infer_server.mpc import recipes
from secure_infer_server.mpc.recent import Recent
from secure_infer_server.mpc.stock import Item, Stock, limits

MAX_RECIPES = 64
"""Recipes that are registered on demand; the least recently used goes first."""

_MAX_PROGRAMS = 1024
_REMEMBERED = 4096  # ids that were handed out or dropped, so that a second claim is refused at once

Ask = Callable[[mpc_pb2.DealRequest], object]


@dataclass(frozen=True)
class Level:
    """One recipe's stock: bundles held, their bytes, how many are wanted. rows: 0 for all registered on demand, together."""

    model: str
    rows: int
    bundles: int
    bytes: int
    wanted: int


class Inventory:
    """What party 0 or 1 holds, in `capacity` bytes. Its epoch: 16 bytes, empty before the first."""

    def __init__(self, party: int, capacity: int) -> None:
        self._party, self._capacity = party, capacity
        self.stocks: OrderedDict[bytes, Stock] = OrderedDict()
        self.gone = Recent(most=_REMEMBERED)
        self.seeds: dict[str, bytes] = {}
        self.counts: Counter[str] = Counter()
        self.epoch = b""
        self._owed: Counter[bytes] = Counter()  # asked for in this epoch and not received, by recipe
        self._ask: Ask | None = None

    @property
    def dealing(self) -> bool:
        """True while there is somebody to ask for more."""
        return self._ask is not None

    def begin(self, epoch: bytes, ask: Ask) -> None:
        """A new epoch; what is held is worth nothing any more. Raises MalformedRequest."""
        if len(epoch) != ID_BYTES:
            raise MalformedRequest(f"epoch: expected an id of {ID_BYTES} bytes, got {len(epoch)}")
        self.void()
        self.epoch, self._ask = epoch, ask
        self.counts["epochs"] += 1
        for stock in self.stocks.values():
            self._refill(stock)

    def pause(self) -> None:
        """The dealer is gone; what is held stays good."""
        self._ask = None
        self._owed.clear()

    def void(self) -> None:
        """Drop every bundle and every seed."""
        for stock in self.stocks.values():
            self._drop(stock.clear())
        self._owed.clear()
        self.seeds.clear()

    def add_masks(self, masks: mpc_pb2.DealMasks) -> None:
        """Keep this party's seed of a program's weight masks; raises MalformedRequest."""
        if len(masks.program) != KEY_BYTES or len(masks.seed) != KEY_BYTES or len(self.seeds) >= _MAX_PROGRAMS:
            raise MalformedRequest(f"weight masks: expected a program and a seed of {KEY_BYTES} bytes, of few programs")
        self.seeds.setdefault(masks.program.hex(), masks.seed)

    def add(self, recipe: bytes, identity: bytes, item: Item | None) -> None:
        """Take in what was dealt for a recipe (digest), or drop it: item None, a recipe that is kept no more, or no room."""
        self.counts["received"] += 1
        self._owed[recipe] -= 1
        if self._owed[recipe] <= 0:
            del self._owed[recipe]
        stock = self.stocks.get(recipe)
        if item is None or stock is None or identity in self.gone or not self._has_room(stock):
            self._drop([identity])
            return
        stock.bundles[identity] = item
        self._refill(stock)

    def oldest(self, stock: Stock) -> Item:
        """The stock's oldest bundle, gone from here on."""
        identity, item = stock.oldest()
        self._use(stock, identity)
        return item

    def pick(self, stock: Stock, identity: bytes) -> Item | None:
        """The bundle of that id, gone from here on; None when it is not here."""
        picked = stock.pick(identity)
        if picked is None:
            return None
        item, dropped = picked
        self._drop(dropped)
        self._use(stock, identity)
        return item

    def register(self, recipe: Recipe, ahead: int, model: str, keep: bool) -> Stock:
        """The recipe's stock, made where there is none; see `Stores.register`."""
        stock = self.stocks.get(recipe.digest)
        if stock is None:
            stock = Stock(recipes.checked(recipe), self._party)
        self.stocks[recipe.digest] = stock
        self.stocks.move_to_end(recipe.digest)
        stock.kept, stock.model = stock.kept or keep, model or stock.model
        if ahead > stock.ahead:
            stock.ahead = min(ahead, recipes.MAX_CREDITS)
            self._divide(stock)
            self._refill(stock)
        return stock

    def levels(self) -> list[Level]:
        """What is held, by model and rows."""
        found: dict[tuple[str, int], list[int]] = {}
        for stock in self.stocks.values():
            key = (stock.model, stock.recipe.rows if stock.kept else 0)
            one = (stock.held, stock.held_bytes, stock.limit)
            found[key] = [a + b for a, b in zip(found.get(key, [0, 0, 0]), one, strict=True)]
        return [Level(model, rows, *figures) for (model, rows), figures in found.items()]

    def _divide(self, newest: Stock) -> None:
        """Divide memory anew; recipes registered on demand go, the least recently used first, until one of each fits."""
        stocks = list(self.stocks.values())
        loose = [stock for stock in stocks if not (stock.kept or stock.waiting or stock is newest)]
        leaving = max(0, len(loose) + 1 - MAX_RECIPES)
        while (found := self._limits([stock for stock in stocks if stock not in loose[:leaving]])) is None:
            if leaving == len(loose):
                del self.stocks[newest.recipe.digest]
                raise ResourceExhausted(
                    f"correlations for {newest.recipe.rows} rows: {newest.item_bytes} bytes do not fit beside what is kept "
                    f"in {self._capacity}; send fewer rows, or raise --store-memory"
                )
            leaving += 1
        for stock in loose[:leaving]:
            del self.stocks[stock.recipe.digest]
            self._drop(stock.clear())
        for stock, limit in zip(self.stocks.values(), found, strict=True):
            stock.limit = limit
            while self._party == 0 and len(stock.bundles) > limit:
                self._drop([stock.drop_newest()])

    def _limits(self, stocks: list[Stock]) -> list[int] | None:
        return limits([(stock.ahead, stock.item_bytes) for stock in stocks], self._capacity)

    def _has_room(self, stock: Stock) -> bool:
        """True when one more bundle fits, at party 1 after dropping its oldest."""
        if self._party == 0:
            return len(stock.bundles) < stock.limit
        while sum(other.held_bytes for other in self.stocks.values()) + stock.item_bytes > self._capacity:
            largest = max(self.stocks.values(), key=lambda other: other.held_bytes)
            self._drop([largest.drop_oldest()])
        return True

    def _refill(self, stock: Stock) -> None:
        """Ask for more when half is used."""
        if self._ask is None:
            return
        digest = stock.recipe.digest
        missing = stock.limit - self._owed[digest] - (len(stock.bundles) if self._party == 0 else 0)
        if missing > 0 and 2 * missing >= stock.limit:
            self._owed[digest] += missing
            self._ask(mpc_pb2.DealRequest(want=mpc_pb2.DealWant(recipe=stock.recipe.as_json(), count=missing)))

    def _use(self, stock: Stock, identity: bytes) -> None:
        self.counts["used"] += 1
        self.gone.add(identity)
        self._refill(stock)

    def _drop(self, identities: list[bytes]) -> None:
        self.counts["dropped"] += len(identities)
        self.gone.update(identities)
