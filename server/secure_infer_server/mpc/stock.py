"""The bundles of one recipe that a party holds, and how memory is divided among recipes. No threads, no time."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Condition

from secure_infer.errors import MalformedRequest
from secure_infer.mpc.correlations import ID_BYTES, Bundle, Correlations, Recipe
from secure_infer.mpc.streams import KEY_BYTES

EXPANDED_BYTES = 256 << 10
"""Bundles that take no more than that are kept expanded, ready to use. On two x86-64 cores, 384-64-10 with a square and shared
weights, it saves a request 0.03 ms at 1 row and 0.05 at 16; at 256 rows it would save 0.2 to 1.4, for 1.3 MB a bundle."""

_PASSED = 64  # unclaimed bundles older than a claimed one: requests on other lanes may still be about to claim them
_BUNDLE_OVERHEAD, _FIELD_OVERHEAD = 640, 170  # bytes of Python's objects around a bundle, and around each array of one


Item = Bundle | Correlations
"""A bundle as it is kept."""


@dataclass
class Stock:
    """Bundles of one recipe by id, in the dealer's order. ahead: how many are wanted; limit: how many fit. kept: registered
    for good. waiting: calls that wait for one; turns: of these, those that take any, in the order they came. model: a name for
    metrics."""

    recipe: Recipe
    party: int
    kept: bool = False
    model: str = ""
    ahead: int = 0
    limit: int = 0
    waiting: int = 0
    turns: deque[Condition] = field(default_factory=deque)
    bundles: OrderedDict[bytes, Item] = field(default_factory=OrderedDict)
    passed: OrderedDict[bytes, Item] = field(default_factory=OrderedDict)

    @cached_property
    def expanded(self) -> bool:
        return 8 * self.recipe.words(1) <= EXPANDED_BYTES

    @cached_property
    def bundle_bytes(self) -> int:
        """What one bundle sends: its id, seed and corrections."""
        return ID_BYTES + KEY_BYTES + (0 if self.party else 8 * self.recipe.correction_words)

    @cached_property
    def item_bytes(self) -> int:
        """Memory of one bundle as it is kept."""
        if not self.expanded:
            return _BUNDLE_OVERHEAD + self.bundle_bytes
        fields = sum(len(need.masks()) + len(need.derived()) for need in self.recipe.needs)
        return _BUNDLE_OVERHEAD + _FIELD_OVERHEAD * fields + 8 * self.recipe.words(1)

    @property
    def held(self) -> int:
        return len(self.bundles) + len(self.passed)

    @property
    def held_bytes(self) -> int:
        return self.held * self.item_bytes

    def prepared(self, bundle: Bundle) -> Item:
        """A bundle as it is kept; raises MalformedRequest when its lengths are wrong."""
        size = len(bundle.id) + len(bundle.seed) + len(bundle.corrections)
        if len(bundle.id) != ID_BYTES or len(bundle.seed) != KEY_BYTES or size != self.bundle_bytes:
            raise MalformedRequest(
                f"bundle: expected {self.bundle_bytes} bytes of id, seed and corrections, got {size}"
            )
        return Correlations(bundle, self.recipe, self.party) if self.expanded else bundle

    def oldest(self) -> tuple[bytes, Item]:
        """The oldest bundle, held no more."""
        return self.bundles.popitem(last=False)

    def pick(self, identity: bytes) -> tuple[Item, list[bytes]] | None:
        """The bundle of that id, held no more, and the ids of those dropped because newer ones were picked long since; None
        when it is not held."""
        if identity in self.passed:
            return self.passed.pop(identity), []
        if identity not in self.bundles:
            return None
        while True:
            oldest, item = self.bundles.popitem(last=False)
            if oldest == identity:
                break
            self.passed[oldest] = item
        dropped = [self.passed.popitem(last=False)[0] for _ in range(len(self.passed) - _PASSED)]
        return item, dropped

    def drop_oldest(self) -> bytes:
        """Drop one bundle that is least likely to be asked for; returns its id."""
        return (self.passed or self.bundles).popitem(last=False)[0]

    def drop_newest(self) -> bytes:
        return self.bundles.popitem()[0]

    def holds(self, identity: bytes) -> bool:
        return identity in self.bundles or identity in self.passed

    def clear(self) -> list[bytes]:
        """Drop everything; returns the ids."""
        identities = [*self.passed, *self.bundles]
        self.passed.clear()
        self.bundles.clear()
        return identities


def limits(wanted: Sequence[tuple[int, int]], capacity: int) -> list[int] | None:
    """How many bundles of each recipe fit into `capacity` bytes, from (ahead, bytes of one): the recipes that take most are
    halved first, none below one. None when one of each is too much.

    >>> limits([(64, 10), (4, 100)], 900)
    [32, 4]
    """
    found = [ahead for ahead, _ in wanted]
    while sum(count * size for count, (_, size) in zip(found, wanted, strict=True)) > capacity:
        bytes_of = [count * size if count > 1 else 0 for count, (_, size) in zip(found, wanted, strict=True)]
        most = max(bytes_of, default=0)
        if not most:
            return None
        found[bytes_of.index(most)] //= 2
    return found
