"""A dealer and two party processes, secret-shared queries."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from secure_infer.heads import Head
from secure_infer.mpc.disclosure import failures, in_a_line
from secure_infer.mpc.program import Program
from secure_infer.mpc.ring import Floats, Words, decode, encode
from secure_infer.mpc.sharing import join
from secure_infer.v1 import mpc_pb2
from secure_infer_client import samples
from secure_infer_client.client import Client
from secure_infer_client.costs import in_words
from secure_infer_client.demonstration.scored import LAST_WORD, MODEL, common_lines, result, score
from secure_infer_client.demonstration.seen import (
    SHOWN,
    Seen,
    in_hex,
    in_numbers,
    only_the_client_has,
    say,
    table,
    tail,
)
from secure_infer_client.local_parties import LocalParties
from secure_infer_client.prediction import Prediction
from secure_infer_client.recorder import Recorder


@dataclass(frozen=True)
class Halves:
    """What each party's socket saw of one text, the words of its half among it; `joined` is what both would know."""

    parties: tuple[Seen, Seen]
    fraction: int

    @property
    def shares(self) -> list[Words]:
        return [_share(seen.up, len(seen.embedding)) for seen in self.parties]

    @property
    def joined(self) -> Floats:
        return decode(join(*self.shares), self.fraction)

    @property
    def joined_error(self) -> float:
        """Largest difference of the halves joined from the embedding: rounding to fixed point."""
        return float(np.abs(self.joined - self.parties[0].embedding).max())


def run(directory: Path, head: Head, drawn: Sequence[samples.Sample], *, quiet: bool) -> dict[str, Any]:
    """The demonstration; what it found, as JSON can hold it."""
    say(quiet, "starting a dealer and two parties")
    with LocalParties(directory) as local:
        for name, process in zip(("dealer", "party 0", "party 1"), (local.dealer, *local.parties), strict=True):
            say(quiet, f"{name}: process {process.process.pid} on {process.address}")
        shown, halves = _recorded(local.addresses, drawn[:SHOWN])
        if not quiet:
            table(drawn, shown)
            _what_was_seen(halves)
        with Client(local.addresses, model=MODEL, scheme="mpc") as client:
            scored = score(client, drawn)
    calls, program = scored.calls, scored.plan
    found = {
        **result(scored, head, drawn),
        "plan": in_words(program),
        "link_rounds": int(median(call.link_rounds for call in calls)),
        "link_bytes": int(median(call.link_bytes for call in calls)),
        "correlation_bytes": int(median(call.correlation_bytes for call in calls)),
        "wait_ms": median(call.wait_ms for call in calls),
        "retries": sum(call.retries for call in calls),
        "who_learns": in_a_line(program),
        "parties_saw": {
            "text": halves.parties[0].text,
            "bytes_up_hex": [tail(seen.up).hex() for seen in halves.parties],
            "found_in_bytes": [seen.leaks() for seen in halves.parties],
            "joined_error": halves.joined_error,
        },
    }
    if not quiet:
        say(False, "\n".join(_summary(found, program)))
    return found


def _recorded(addresses: Sequence[str], texts: Sequence[samples.Sample]) -> tuple[list[Prediction], Halves]:
    """Classify through recorders on the parties' sockets; what passed each for the last text."""
    with ExitStack() as stack:
        recorders = [stack.enter_context(Recorder(address)) for address in addresses]
        client = stack.enter_context(Client([one.address for one in recorders], model=MODEL, scheme="mpc"))
        shown = client.classify([s.text for s in texts[:-1]]) if len(texts) > 1 else []
        program: Program = client.plan
        embedding = client.embed([texts[-1].text])[0]
        before = [(len(one.sent), len(one.received)) for one in recorders]
        shown += client.classify([texts[-1].text])
        fixed = {"embedding in fixed point": encode(embedding, program.fraction)}
        first, second = (
            Seen(texts[-1].text, embedding, bytes(one.sent[up:]), bytes(one.received[down:]), fixed)
            for one, (up, down) in zip(recorders, before, strict=True)
        )
        return shown, Halves((first, second), program.fraction)


def _share(up: bytes, features: int) -> Words:
    """The half among the bytes that passed: what follows the head of its field in the request."""
    size = 8 * features
    start = mpc_pb2.InferShareRequest(rows=1, share=bytes(size)).SerializeToString()[:-size]
    at = up.rfind(start) + len(start)
    return np.frombuffer(up[at : at + size], "<u8").astype(np.uint64)


def _what_was_seen(halves: Halves) -> None:
    lines = only_the_client_has(halves.parties[0])
    for number, seen in enumerate(halves.parties):
        found = ", ".join(seen.leaks()) or "not found"
        lines += [
            f"what passed party {number}'s socket for it ({len(seen.up):,} bytes up, {len(seen.down):,} down), "
            "the last 160 bytes up:",
            *in_hex(tail(seen.up)),
            f"searched those bytes for the text, its words, the embedding and its words in fixed point: {found}",
        ]
    lines += [
        "only both halves together are the embedding; added up, as neither party can:",
        f"  {in_numbers(halves.joined)} …, within {halves.joined_error:.0e} of it",
        "",
    ]
    say(False, "\n".join(lines))


def rounds_in_words(r: dict[str, Any]) -> str:
    return f"{r['link_rounds']} round{'' if r['link_rounds'] == 1 else 's'}, {r['link_bytes']:,} bytes"


def _summary(r: dict[str, Any], program: Program) -> list[str]:
    return [
        f"{r['texts']} held-out texts, {r['model']}, {r['plan']}",
        *common_lines(r, "shared", failures(program), {"encrypt": "split", "server": "parties", "decrypt": "join"}),
        f"  bytes            {r['bytes_up']:,} up, {r['bytes_down']:,} down a text, both halves together; no keys",
        f"  between parties  {rounds_in_words(r)} each way a text; {r['correlation_bytes']:,} bytes of correlations, "
        "made ahead",
        f"  asked again      {r['retries']} text{'' if r['retries'] == 1 else 's'}, whose answers were out of range",
        f"  who learns what  {r['who_learns']}",
        f"  took             {r['seconds']:.1f} s",
        "Private as long as the two parties do not collude, nor the dealer with either.",
        LAST_WORD,
    ]
