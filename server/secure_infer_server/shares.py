"""Who may wait where not all can: a queue that is full is shared evenly among the callers in it.

room 8:  a waits with 8     b asks for 1     share 8 / 2 = 4:  b is taken, and the newest of a's goes
         a 4, b 4           c asks for 1     share 8 / 3:      c is taken, for the newest of a's
         a 3, b 4, c 1      a asks for 1     share 8 / 3:      refused
"""

from __future__ import annotations

from collections.abc import Mapping

from secure_infer.errors import ResourceExhausted

RETRY_LEAST, RETRY_MOST = 0.05, 5.0


def may_wait(waiting: Mapping[str, float], caller: str, size: float, room: float) -> bool:
    """Whether `caller` may wait with `size` more, somebody else's if need be going. waiting: what each caller waits with."""
    others = sum(waiting.values())
    if others + size <= room or not waiting:  # alone in it, any size
        return True
    share = room / len(waiting.keys() | {caller})
    return waiting.get(caller, 0.0) + size <= share and max(waiting.values()) > share


def greediest(waiting: Mapping[str, float]) -> str:
    """Who waits with most."""
    return max(waiting, key=lambda caller: waiting[caller])


def refused(what: str, seconds: float) -> ResourceExhausted:
    """seconds: until what waits now is done, about; callers who come back then find room."""
    after = round(1e3 * min(RETRY_MOST, max(RETRY_LEAST, seconds)))
    return ResourceExhausted(f"{what}; ask again in {after} ms", again="shortly", retry_after_ms=after)
