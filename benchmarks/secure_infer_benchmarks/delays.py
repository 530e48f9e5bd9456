"""Latency where every link takes time: what the number of rounds says it is, beside what it is.

With d one way on every link, halves sent at 0, and START and the first DATA leaving party 0 together:

    time       party 0                      party 1
    d          half; START, DATA 1 ->       half
    2 d                                     START, DATA 1 of party 0; DATA 1 ->, and DATA 2 -> at once
    3 d        DATA 1, DATA 2; DATA 2 ->
               and DATA 3 -> at once
    4 d                                     DATA 2, DATA 3; DATA 3 ->, and DATA 4 -> at once

A message of round n + 1 leaves when that of round n is there, so the parties take turns to be a round ahead, and the last
of R rounds ends at (R + 2) d at one of them. Its answer is at the client at

    latency = latency on loopback + 2 d + (1 + R) d

that is a round trip of the client, one way for START, and one way a round. A program without a round takes one: AGREED.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from time import sleep
from typing import Any

from tqdm import tqdm

from secure_infer_benchmarks.parties import Parties, Served
from secure_infer_benchmarks.queries import Queries, spread, warmed_up
from secure_infer_benchmarks.synthetic import inputs

ROUND_TRIP_MS = 20.0
PAUSE = 0.004
"""Seconds after a query, in which the parties' stores fill again."""


def explained(loopback_ms: float, rounds: int, round_trip_ms: float) -> float:
    """Milliseconds that a query takes on such links, from its latency on loopback and its rounds (at least one).

    >>> explained(2.0, 3, 20.0)
    62.0
    """
    return loopback_ms + (3 + rounds) * round_trip_ms / 2


def measure(
    loopback: Parties, served: Sequence[Served], repeats: int, round_trip_ms: float = ROUND_TRIP_MS
) -> dict[str, Any]:
    """Each model on loopback and through forwarders, in turn, one record a query: medians beside what rounds explain.

    loopback: parties that serve the models; those behind forwarders are started for the time.
    """
    wanted = [(one.name, one, inputs(one.head.features, 64), 1) for one in served]
    with ExitStack() as stack:
        delayed = stack.enter_context(Parties(served, round_trip_ms))
        (near, reasons), (far, more) = (warmed_up(stack, parties, wanted) for parties in (loopback, delayed))
        names = [name for name in near if name in far]
        for _ in tqdm(range(repeats), desc="links with a delay", leave=False, disable=None):
            for name in names:
                for queries in (near[name], far[name]):
                    queries.ask()
                    sleep(PAUSE)
    rows = {name: _row(near[name], far[name], round_trip_ms) for name in names}
    absent = {name: {"reason": reason} for name, reason in (reasons | more).items()}
    return {"round_trip_ms": round_trip_ms, "cases": rows | absent}


def _row(near: Queries, far: Queries, round_trip_ms: float) -> dict[str, Any]:
    loopback, measured = spread(near.call_ms), spread(far.call_ms)
    rounds = far.stats[-1].link_rounds
    expected = explained(loopback["median"], rounds, round_trip_ms)
    return {
        "rounds": rounds,
        "loopback_ms": loopback,
        "explained_ms": expected,
        "measured_ms": measured,
        "measured_to_explained": measured["median"] / expected,
        "agreement_beyond_twice_the_bound": far.agreement,
    }
