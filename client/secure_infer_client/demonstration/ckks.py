"""One server process, encrypted queries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secure_infer.heads import Head
from secure_infer_client import samples
from secure_infer_client.client import Client
from secure_infer_client.demonstration.scored import LAST_WORD, MODEL, common_lines, result, score
from secure_infer_client.demonstration.seen import SHOWN, Seen, in_hex, only_the_client_has, say, table, tail
from secure_infer_client.local_server import LocalServer
from secure_infer_client.prediction import Prediction
from secure_infer_client.recorder import Recorder

LEARNS = "client: logits; server: how many texts and when, and it has the model"


def run(directory: Path, head: Head, drawn: Sequence[samples.Sample], *, quiet: bool) -> dict[str, Any]:
    """The demonstration; what it found, as JSON can hold it."""
    say(quiet, "starting a server; it plans how each model is evaluated, which takes some seconds")
    with LocalServer(directory) as server:
        names = ", ".join(server.models)
        say(quiet, f"server: process {server.process.pid} on {server.address}, models {names}")
        shown, seen = _recorded(server.address, drawn[:SHOWN])
        if not quiet:
            table(drawn, shown)
            _what_was_seen(seen)
        with Client(server.address, model=MODEL) as client:
            scored = score(client, drawn)
    plan = scored.plan
    found = {
        **result(scored, head, drawn),
        "key_bytes": scored.first.key_bytes,
        "plan": f"{plan.kind} {plan.parameters}",
        "privacy": str(plan.privacy),
        "smudging_bits": plan.smudging_bits,
        "blinds_made_during_requests": sum(call.blinds_inline for call in scored.calls),
        "server_saw": {"text": seen.text, "bytes_up_hex": tail(seen.up).hex(), "found_in_bytes": seen.leaks()},
    }
    if not quiet:
        say(False, "\n".join(_summary(found)))
    return found


def _recorded(address: str, texts: Sequence[samples.Sample]) -> tuple[list[Prediction], Seen]:
    """Classify through a recorder on the server's socket; what passed for the last text."""
    with Recorder(address) as recorder, Client(recorder.address, model=MODEL) as client:
        shown = client.classify([s.text for s in texts[:-1]]) if len(texts) > 1 else []
        client.predict(client.embed([texts[-1].text]))  # the key is uploaded before the recording begins
        up, down = len(recorder.sent), len(recorder.received)
        shown += client.classify([texts[-1].text])
        embedding = client.embed([texts[-1].text])[0]
        return shown, Seen(texts[-1].text, embedding, bytes(recorder.sent[up:]), bytes(recorder.received[down:]), {})


def _what_was_seen(seen: Seen) -> None:
    found = ", ".join(seen.leaks()) or "not found"
    lines = [
        *only_the_client_has(seen),
        f"what passed the server's socket for it ({len(seen.up):,} bytes up, {len(seen.down):,} down), the last 160 bytes up:",
        *in_hex(tail(seen.up)),
        f"searched those bytes for the text, its words and the embedding: {found}",
        "",
    ]
    say(False, "\n".join(lines))


def _summary(r: dict[str, Any]) -> list[str]:
    return [
        f"{r['texts']} held-out texts, {r['model']}, {r['plan']}, {r['privacy']}, {r['security_bits']}-bit security, "
        f"{r['smudging_bits']} smudging bits",
        *common_lines(r, "encrypted", f"a query exceeds it with probability {r['failure_probability']:.0e}"),
        f"  bytes            {r['bytes_up']:,} up, {r['bytes_down']:,} down a text; "
        f"{r['key_bytes']:,} of public key once; no evaluation keys",
        f"  took             {r['seconds']:.1f} s",
        LAST_WORD,
    ]
