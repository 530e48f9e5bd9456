"""`secure-infer demo`: the whole path on this machine, on real diagnosis texts, with what each side saw."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from secure_infer import models
from secure_infer.errors import SettingsError
from secure_infer.heads import Head
from secure_infer_client import samples
from secure_infer_client.client import Client
from secure_infer_client.local_server import LocalServer
from secure_infer_client.prediction import Prediction
from secure_infer_client.recorder import Recorder

MODEL = "icd10-chapter-linear"
STAGES = ("embed", "encrypt", "network", "server", "decrypt", "total")
SHOWN = 8


@dataclass(frozen=True)
class Seen:
    """What passed the server's socket while one text was classified, beside what only the client has."""

    text: str
    embedding: NDArray[np.float64]
    up: bytes
    down: bytes

    def leaks(self) -> list[str]:
        """Which of text, words and embedding occur in the bytes up; expected none."""
        words = [word for word in self.text.split() if len(word) > 4]
        found = [word for word in [self.text, *words] if word.encode() in self.up]
        for kind in ("<f4", "<f8"):
            values = self.embedding.astype(kind)
            found += [f"embedding as {kind}"] * any(
                values[i : i + 2].tobytes() in self.up for i in range(len(values) - 1)
            )
        return found


def run(arguments: list[str]) -> int:
    """Run the demo; prints a table and a summary, or one JSON object."""
    parser = argparse.ArgumentParser("secure-infer demo", description=__doc__)
    parser.add_argument("--texts", type=int, default=1000, metavar="N", help="held-out texts of the summary (1000)")
    parser.add_argument(
        "--seed", type=int, default=samples.PUBLISHED_SEED, help=f"of the draw ({samples.PUBLISHED_SEED})"
    )
    parser.add_argument(
        "--models", type=Path, default=None, metavar="DIR", help="serve these heads instead of the packaged ones"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if not 1 <= options.texts <= len(samples.load()):
        raise SettingsError(f"--texts: expected 1 to {len(samples.load())}, got {options.texts}")
    drawn = samples.draw(options.texts, options.seed)
    directory = options.models or models.path()
    head = Head.load(directory / f"{MODEL}.head")
    quiet = options.json
    _say(quiet, "starting a server; it plans how each model is evaluated, which takes some seconds")
    with LocalServer(directory) as server:
        names = ", ".join(server.models)
        _say(quiet, f"server: process {server.process.pid} on {server.address}, models {names}")
        shown, seen = _recorded(server.address, drawn[:SHOWN])
        if not quiet:
            _table(drawn, shown)
            _what_was_seen(seen)
        result = _measure(server.address, head, drawn)
    result["server_saw"] = {"text": seen.text, "bytes_up_hex": seen.up[-160:].hex(), "found_in_bytes": seen.leaks()}
    if options.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        _summary(result)
    return 0


def _say(quiet: bool, text: str = "") -> None:
    if not quiet:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _recorded(address: str, texts: list[samples.Sample]) -> tuple[list[Prediction], Seen]:
    """Classify through a recorder on the server's socket; what passed for the last text."""
    with Recorder(address) as recorder, Client(recorder.address, model=MODEL) as client:
        shown = client.classify([s.text for s in texts[:-1]]) if len(texts) > 1 else []
        client.predict(client.embed([texts[-1].text]))  # the key is uploaded before the recording begins
        up, down = len(recorder.sent), len(recorder.received)
        shown += client.classify([texts[-1].text])
        embedding = client.embed([texts[-1].text])[0]
        return shown, Seen(texts[-1].text, embedding, bytes(recorder.sent[up:]), bytes(recorder.received[down:]))


def _measure(address: str, head: Head, texts: list[samples.Sample]) -> dict[str, Any]:
    """Score every text on its own; accuracy against the labels, agreement with plaintext, costs."""
    stages: dict[str, list[float]] = {stage: [] for stage in STAGES}
    rows, answers, up, down, inline = [], [], [], [], 0
    with Client(address, model=MODEL) as client:
        client.classify([texts[0].text])
        key_bytes, plan = client.last_call.stats.key_bytes, client.plan
        started = perf_counter()
        for sample in tqdm(texts, desc="texts", unit="text", leave=False, disable=None):
            before = perf_counter()
            row = client.embed([sample.text])
            embed = 1e3 * (perf_counter() - before)
            answers.append(client.predict(row)[0])
            rows.append(row[0])
            stats = replace(client.last_call.stats, embed_ms=embed, total_ms=1e3 * (perf_counter() - before))
            for stage in STAGES:
                stages[stage].append(getattr(stats, f"{stage}_ms"))
            up.append(stats.bytes_up)
            down.append(stats.bytes_down)
            inline += stats.blinds_inline
        elapsed = perf_counter() - started
    encrypted, plain = np.stack(answers), head.evaluate(np.stack(rows))
    truth = np.array([head.labels.index(sample.label) for sample in texts])
    agree = encrypted.argmax(axis=1) == plain.argmax(axis=1)
    best = np.partition(plain, -2, axis=1)
    sure = best[:, -1] - best[:, -2] > 2 * plan.error_bound
    return {
        "model": MODEL,
        "texts": len(texts),
        "accuracy_encrypted": float((encrypted.argmax(axis=1) == truth).mean()),
        "accuracy_plaintext": float((plain.argmax(axis=1) == truth).mean()),
        "agreement": float(agree.mean()),
        "agreement_beyond_twice_the_bound": float(agree[sure].mean()) if sure.any() else 1.0,
        "texts_beyond_twice_the_bound": int(sure.sum()),
        "max_logit_error": float(np.abs(encrypted - plain).max()),
        "error_bound": plan.error_bound,
        "failure_probability": plan.failure_probability,
        "latency_ms": {stage: median(values) for stage, values in stages.items()},
        "bytes_up": int(median(up)),
        "bytes_down": int(median(down)),
        "key_bytes": key_bytes,
        "plan": f"{plan.kind} {plan.parameters}",
        "privacy": str(plan.privacy),
        "security_bits": plan.security_bits,
        "smudging_bits": plan.smudging_bits,
        "blinds_made_during_requests": inline,
        "seconds": elapsed,
    }


def _table(texts: list[samples.Sample], shown: list[Prediction]) -> None:
    width = 58
    lines = ["", f"{'text (stays on the client)':<{width}}  {'chapter':<38} {'confidence':>10}  correct"]
    for sample, p in zip(texts, shown, strict=False):
        text = sample.text if len(sample.text) <= width else sample.text[: width - 1] + "…"
        mark = "yes" if p.label == sample.label else f"no: {sample.label}"
        lines.append(f"{text:<{width}}  {p.label[:38]:<38} {p.probability:>10.1%}  {mark}")
    _say(False, "\n".join(lines))


def _what_was_seen(seen: Seen) -> None:
    numbers = " ".join(f"{v:+.4f}" for v in seen.embedding[:8])
    hexed = seen.up[-160:].hex(" ", 4)
    rows = [hexed[i : i + 90] for i in range(0, len(hexed), 90)]
    found = ", ".join(seen.leaks()) or "not found"
    lines = [
        "",
        "what only the client has:",
        f"  text       {seen.text}",
        f"  embedding  {numbers} … (384 numbers)",
        f"what passed the server's socket for it ({len(seen.up):,} bytes up, {len(seen.down):,} down), the last 160 bytes up:",
        *(f"  {row}" for row in rows),
        f"searched those bytes for the text, its words and the embedding: {found}",
        "",
    ]
    _say(False, "\n".join(lines))


def _summary(r: dict[str, Any]) -> None:
    latency = r["latency_ms"]
    lines = [
        f"{r['texts']} held-out texts, {r['model']}, {r['plan']}, {r['privacy']}, {r['security_bits']}-bit security, "
        f"{r['smudging_bits']} smudging bits",
        f"  accuracy         {r['accuracy_encrypted']:.1%} encrypted, {r['accuracy_plaintext']:.1%} plaintext",
        f"  agreement        {r['agreement']:.2%} of labels; {r['agreement_beyond_twice_the_bound']:.2%} of the "
        f"{r['texts_beyond_twice_the_bound']} whose plaintext margin exceeds twice the error bound",
        f"  logit error      {r['max_logit_error']:.1e} at most; stated bound {r['error_bound']:.1e} "
        f"(a query exceeds it with probability {r['failure_probability']:.0e})",
        "  latency, median  " + ", ".join(f"{stage} {latency[stage]:.2f}" for stage in STAGES) + " ms",
        f"  bytes            {r['bytes_up']:,} up, {r['bytes_down']:,} down a text; "
        f"{r['key_bytes']:,} of public key once; no evaluation keys",
        f"  took             {r['seconds']:.1f} s",
        "Medical terminology, not clinical notes; a demonstration, not a medical device.",
    ]
    _say(False, "\n".join(lines))
