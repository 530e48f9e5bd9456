"""What a party holds: memory, what is asked for, what is passed over. No threads, no dealer."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_infer.errors import MalformedRequest, ResourceExhausted
from secure_infer.mpc.correlations import Bundle, Correlations, Recipe, Square, deal
from secure_infer.v1 import mpc_pb2
from secure_infer_server.mpc import inventory as inventories
from secure_infer_server.mpc.inventory import Inventory
from secure_infer_server.mpc.stock import EXPANDED_BYTES, Stock, limits


def squares(rows: int, count: int = 4) -> Recipe:
    return Recipe("ab" * 32, rows, (Square(count),))


class Dealer:
    """What an inventory asks for, and bundles for it."""

    def __init__(self, party: int, capacity: int = 1 << 20) -> None:
        self.party = party
        self.inventory = Inventory(party, capacity)
        self.asked: list[tuple[int, int]] = []
        self.begin()

    def begin(self) -> None:
        self.asked.clear()
        self.inventory.begin(os.urandom(16), self._ask)

    def _ask(self, request: mpc_pb2.DealRequest) -> None:
        self.asked.append((Recipe.from_json(request.want.recipe).rows, request.want.count))

    def register(self, recipe: Recipe, ahead: int = 1, keep: bool = False) -> Stock:
        return self.inventory.register(recipe, ahead, "", keep)

    def send(self, recipe: Recipe, count: int = 1) -> list[bytes]:
        """Deal so many; returns their ids."""
        found = []
        for _ in range(count):
            bundle = deal(recipe)[self.party]
            stock = self.inventory.stocks.get(recipe.digest)
            self.inventory.add(recipe.digest, bundle.id, None if stock is None else stock.prepared(bundle))
            found.append(bundle.id)
        return found

    @property
    def bytes(self) -> int:
        return sum(stock.held_bytes for stock in self.inventory.stocks.values())


def test_party_0_asks_for_more_when_half_is_used() -> None:
    dealer, recipe = Dealer(0), squares(1)
    stock = dealer.register(recipe, 8)
    dealer.register(recipe, 8)
    dealer.register(recipe)
    assert dealer.asked == [(1, 8)]
    dealer.send(recipe, 8)
    for _ in range(3):
        dealer.inventory.oldest(stock)
    assert dealer.asked == [(1, 8)]
    dealer.inventory.oldest(stock)
    assert dealer.asked == [(1, 8), (1, 4)]
    dealer.inventory.oldest(stock)
    assert dealer.asked == [(1, 8), (1, 4)]  # four are on their way
    dealer.begin()
    assert dealer.asked == [(1, 8)]
    assert not stock.held


def test_party_1_never_waits_for_claims_that_were_lost() -> None:
    """Bundles that party 0 took in vain, a whole store of them, do not stop the dealing."""
    dealer, recipe = Dealer(1), squares(1)
    stock = dealer.register(recipe, 8)
    for _ in range(50):
        dealer.send(recipe, 8)
    assert sum(count for _, count in dealer.asked) >= 8 * 50
    (last,) = dealer.send(recipe)
    assert dealer.inventory.pick(stock, last) is not None
    assert stock.held == 64  # what may still be claimed by requests on other lanes


def test_claims_nearly_in_order() -> None:
    dealer, recipe = Dealer(1), squares(1)
    stock = dealer.register(recipe, 8)
    ids = dealer.send(recipe, 8)
    for place in (2, 0, 1, 5, 4, 3):
        item = dealer.inventory.pick(stock, ids[place])
        assert isinstance(item, Correlations)
        assert item.id == ids[place]
        assert dealer.inventory.pick(stock, ids[place]) is None
        assert ids[place] in dealer.inventory.gone
    assert list(stock.bundles) == ids[6:]
    assert not stock.passed


def test_an_id_that_was_used_never_comes_back() -> None:
    dealer, recipe = Dealer(0), squares(1)
    stock = dealer.register(recipe, 8)
    bundle = deal(recipe)[0]
    for _ in range(2):
        dealer.inventory.add(recipe.digest, bundle.id, stock.prepared(bundle))
        if stock.bundles:
            dealer.inventory.oldest(stock)
    assert (stock.held, dealer.inventory.counts["used"]) == (0, 1)


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 5000)), min_size=1, max_size=20), st.integers(0, 200_000))
def test_limits_fit_and_leave_one_of_each(wanted: list[tuple[int, int]], capacity: int) -> None:
    found = limits(wanted, capacity)
    least = sum(size for _, size in wanted)
    assert (found is None) == (least > capacity)
    if found is not None:
        assert all(1 <= limit <= ahead for limit, (ahead, _) in zip(found, wanted, strict=True))
        assert sum(limit * size for limit, (_, size) in zip(found, wanted, strict=True)) <= capacity


@pytest.mark.parametrize("party", [0, 1])
def test_memory_is_bounded_whatever_the_dealer_sends(party: int) -> None:
    capacity = 200_000
    dealer, single, batch = Dealer(party, capacity), squares(1), squares(16, 900)
    dealer.register(single, 64, keep=True)
    dealer.register(batch, 64, keep=True)
    for _ in range(30):
        dealer.send(single, 10)
        dealer.send(batch, 10)
        assert dealer.bytes <= capacity
    assert all(stock.held for stock in dealer.inventory.stocks.values())
    with pytest.raises(ResourceExhausted, match="--store-memory"):
        dealer.register(squares(200, 15_000))
    assert len(dealer.inventory.stocks) == 2


def test_recipes_on_demand_make_room_for_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventories, "MAX_RECIPES", 4)
    dealer = Dealer(0)
    dealer.register(squares(1), 8, keep=True)
    for rows in range(2, 9):
        dealer.register(squares(rows))
        dealer.send(squares(rows))
        dealer.register(squares(3))
    kept = [stock.recipe.rows for stock in dealer.inventory.stocks.values()]
    assert sorted(kept) == [1, 3, 6, 7, 8]
    dealer.send(squares(2))  # asked for, and kept no more
    assert len(dealer.inventory.stocks) == 5
    waited = dealer.register(squares(6))
    waited.waiting = 1
    for rows in range(20, 30):
        dealer.register(squares(rows))
    assert squares(6).digest in dealer.inventory.stocks
    assert squares(3).digest not in dealer.inventory.stocks


def test_small_recipes_are_kept_expanded_and_large_ones_are_not() -> None:
    small, large = squares(1, EXPANDED_BYTES // 16), squares(1, EXPANDED_BYTES // 16 + 1)
    for recipe, kind in ((small, Correlations), (large, Bundle)):
        for party in (0, 1):
            bundle = deal(recipe)[party]
            assert type(Stock(recipe, party).prepared(bundle)) is kind
            for wrong in (
                Bundle(bundle.id, bundle.recipe, bundle.seed, bundle.corrections + b"x"),
                Bundle(bundle.id[1:], bundle.recipe, bundle.seed, bundle.corrections),
                Bundle(bundle.id[1:], bundle.recipe, bundle.seed + b"x", bundle.corrections),
            ):
                with pytest.raises(MalformedRequest):
                    Stock(recipe, party).prepared(wrong)


def test_what_the_dealer_says_is_checked() -> None:
    inventory = Dealer(0).inventory
    with pytest.raises(MalformedRequest):
        inventory.begin(b"short", lambda _: None)
    for program, seed in ((b"x", bytes(32)), (bytes(32), b"x")):
        with pytest.raises(MalformedRequest):
            inventory.add_masks(mpc_pb2.DealMasks(program=program, seed=seed))
    inventory.add_masks(mpc_pb2.DealMasks(program=bytes(32), seed=b"a" * 32))
    inventory.add_masks(mpc_pb2.DealMasks(program=bytes(32), seed=b"b" * 32))
    assert inventory.seeds == {bytes(32).hex(): b"a" * 32}  # one seed an epoch
