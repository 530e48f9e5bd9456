"""Ids that were seen lately, in little memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from time import monotonic


class Recent:
    """The last ids that were added: each for at least `seconds`, and twice that at most, as far as no more than `most` came in
    that time; of more, the last half of `most` at least.

    Two generations; when the newer one is old or full, the older is forgotten whole. That takes 100 bytes an id, a third of
    what a table in order takes, and what is held settles after two generations, however long it goes on.

    >>> seen = Recent(most=4)
    >>> seen.update([b"a", b"b", b"c", b"d", b"e"])
    >>> [each in seen for each in (b"a", b"b", b"c", b"d", b"e")]
    [False, False, True, True, True]
    """

    def __init__(self, seconds: float = math.inf, most: int = 1 << 16, clock: Callable[[], float] = monotonic) -> None:
        self._seconds, self._each, self._clock = seconds, max(1, most // 2), clock
        self._newer: set[bytes] = set()
        self._older: set[bytes] = set()
        self._began = clock()

    def add(self, identity: bytes) -> None:
        """See it now; again, and it stays for longer."""
        now = self._clock()
        if len(self._newer) >= self._each or now - self._began >= self._seconds:
            # Nothing that was added before the newer one began is as young as `seconds`, if that lasted for as long.
            self._older = self._newer if now - self._began < 2 * self._seconds else set()
            self._newer, self._began = set(), now
        self._newer.add(identity)

    def update(self, identities: Iterable[bytes]) -> None:
        """Add each."""
        for identity in identities:
            self.add(identity)

    def __contains__(self, identity: object) -> bool:
        return identity in self._newer or identity in self._older

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)
