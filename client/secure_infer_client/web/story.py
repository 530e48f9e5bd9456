"""One call as the page tells it, as JSON can hold it: each step with the data of that very call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from secure_infer.ckks.plan import Plan
from secure_infer.heads import ModelSpec, Task
from secure_infer.mpc.disclosure import failures, who_learns
from secure_infer.mpc.program import Program
from secure_infer.mpc.ring import Words, decode
from secure_infer.mpc.sharing import join
from secure_infer.v1 import inference_pb2, mpc_pb2
from secure_infer_client.costs import accuracy, in_words
from secure_infer_client.demonstration.seen import Seen
from secure_infer_client.explanation import Explanation
from secure_infer_client.text.deidentify import Deidentified
from secure_infer_client.web.connection import Asked, Connection, Passed, Plaintext
from secure_infer_client.web.figures import of_bytes, of_ciphertexts, of_vector
from secure_infer_client.web.passed import messages

Json = Mapping[str, Any]

_EVERYBODYS = "/secure_infer.v1.InferenceService/Infer /secure_infer.v1.PartyService/InferShare content-type trailers"
"""What every query says in the clear, whatever the text: the method's name and headers."""


def told(connection: Connection, asked: Asked, plaintext: Plaintext | None) -> Json:
    """The whole story. plaintext: what the model costs in the clear, or None where that is not offered."""
    plan = connection.client.plan
    return {
        "scheme": connection.scheme,
        "model": connection.spec.name,
        "cleaned": _cleaned(asked.text, asked.cleaned),
        "embedding": {**of_vector(asked.embedding), "windows": asked.prediction.windows, "ms": asked.stats.embed_ms},
        "protection": _protection(connection, asked, plan),
        "traffic": _traffic(connection, asked),
        "sizes": {"up": asked.stats.bytes_up, "down": asked.stats.bytes_down},
        "view": _view(connection, asked, plan),
        "answer": _answer(connection.spec, asked, plan),
        "cost": _cost(asked, plaintext),
    }


def explained(found: Explanation) -> Json:
    return {
        "label": found.label,
        "logit": found.logit,
        "error_bound": found.error_bound,
        "units": [{"text": w, "adds": float(a)} for w, a in zip(found.words, found.attributions, strict=True)],
    }


def _cleaned(text: str, cleaned: Deidentified) -> Json:
    """The text in pieces; those that were removed have a kind."""
    pieces, at = [], 0
    for removal in cleaned.removed:
        pieces += [{"text": text[at : removal.start], "kind": None}]
        pieces += [{"text": text[removal.start : removal.end], "kind": removal.kind}]
        at = removal.end
    pieces += [{"text": text[at:], "kind": None}]
    return {"pieces": [p for p in pieces if p["text"]], "left": cleaned.text, "removed": len(cleaned.removed)}


def _traffic(connection: Connection, asked: Asked) -> Sequence[Json]:
    """Bytes that passed each socket; empty where nothing could be read."""
    pairs = zip(connection.targets, asked.passed, strict=False)
    return [{"target": target, "up": len(passed.up), "down": len(passed.down)} for target, passed in pairs]


def _protection(connection: Connection, asked: Asked, plan: Any) -> Json:
    """How the embedding leaves this machine. ms: encrypting, or splitting."""
    common = {"plan": in_words(plan), "ms": asked.stats.encrypt_ms, "security_bits": asked.stats.security_bits}
    if isinstance(plan, Program):
        common |= {"rests_on": "the two parties and the dealer do not collude"}
        return common
    ring = plan.parameters
    return common | {
        "degree": ring.degree,
        "modulus_bits": sum(prime.bit_length() for prime in ring.data_primes),
        "smudging_bits": plan.smudging_bits,
        "privacy": str(plan.privacy),
        "key_bytes": connection.key_bytes,
    }


def _view(connection: Connection, asked: Asked, plan: Any) -> Json:
    """What each server was given. seen: empty where the connection is TLS, whose inside nobody on the way can read."""
    if isinstance(plan, Program):
        return _shares(connection, asked, plan)
    query = None if not asked.passed else _query(asked.passed[0], connection.spec.name)
    learns = [
        ["the model that was asked", connection.spec.name],
        ["the size of the query", f"{asked.stats.bytes_up:,} bytes, the same for every text"],
        ["when, and how long it worked on it", f"{asked.stats.server_ms:.1f} ms"],
    ]
    if query is None:
        return {"seen": [], "searched": None, "learns": learns}
    cipher = of_ciphertexts(query.queries[0].ciphertexts, plan.parameters)
    if query.key_digest:
        learns.append(["which public key to answer under", f"{query.key_digest.hex()[:16]}…"])
    return {"seen": [{"who": "server", **cipher}], "searched": _searched(connection, asked), "learns": learns}


def _shares(connection: Connection, asked: Asked, plan: Program) -> Json:
    learns = [
        ["the model that was asked", connection.spec.name],
        ["the size of its half", f"{plan.share_bytes(1):,} bytes, the same for every text"],
        ["when, and how long it worked on it", f"{asked.stats.server_ms:.1f} ms"],
    ]
    halves = [_half(passed, connection.spec.name) for passed in asked.passed]
    between = {
        "rounds": asked.stats.link_rounds,
        "bytes": asked.stats.link_bytes,
        "correlation_bytes": asked.stats.correlation_bytes,
        "who_learns": [[one.who, one.learns] for one in who_learns(plan)],
    }
    found: dict[str, Any] = {"seen": [], "searched": None, "learns": learns, "between": between, "joined": None}
    if len(halves) == 2 and all(half is not None for half in halves):
        words: list[Words] = [np.frombuffer(half or b"", "<u8").astype(np.uint64) for half in halves]
        joined = decode(join(*words), plan.fraction)
        found["seen"] = [{"who": f"party {n}", **of_bytes(half or b"")} for n, half in enumerate(halves)]
        found["searched"] = _searched(connection, asked)
        same = joined.shape == asked.embedding.shape  # a head with public layers is sent what they made of it
        error = float(np.abs(joined - asked.embedding).max()) if same else None
        found["joined"] = {"values": [round(float(v), 4) for v in joined], "error": error}
    return found


def _query(passed: Passed, model: str) -> inference_pb2.InferRequest | None:
    for message in reversed(messages(passed.up)):
        request = _parsed(inference_pb2.InferRequest, message)
        if request is not None and request.model == model and request.queries:
            return request  # type: ignore[no-any-return]
    return None


def _half(passed: Passed, model: str) -> bytes | None:
    for message in reversed(messages(passed.up)):
        request = _parsed(mpc_pb2.InferShareRequest, message)
        if request is not None and request.model == model and request.share:
            return bytes(request.share)
    return None


def _parsed(kind: Any, message: bytes) -> Any:
    try:
        return kind.FromString(message)
    except ValueError:  # protobuf's DecodeError: another kind of message
        return None


def _searched(connection: Connection, asked: Asked) -> Json:
    """Every byte that went up, searched for the text, its words and the embedding."""
    known = f"{connection.spec.name} {_EVERYBODYS} {' '.join(connection.targets)}".lower()
    found: list[str] = []
    for passed in asked.passed:
        seen = Seen(asked.cleaned.text, asked.embedding, passed.up, passed.down, {})
        found += [leak for leak in seen.leaks() if leak.lower() not in known]
    return {"bytes": sum(len(passed.up) for passed in asked.passed), "found": sorted(set(found))}


def _answer(spec: ModelSpec, asked: Asked, plan: Plan | Program) -> Json:
    """bars: labels with probabilities, the largest first; none for labels alone. numbers: of a regression."""
    prediction = asked.prediction
    found: dict[str, Any] = {
        "label": prediction.label,
        "probability": _number(prediction.probability),
        "certain": prediction.certain,
        "margin": _number(prediction.margin),
        "error_bound": prediction.error_bound,
        "abstain": prediction.abstain,
        "accuracy": accuracy(plan, prediction.error_bound),
        "failure": failures(plan) if isinstance(plan, Program) else None,
        "explainable": bool(len(prediction.logits)),
        "bars": [],
        "numbers": [],
        "ms": asked.stats.decrypt_ms,
        "bytes": asked.stats.bytes_down,
    }
    if not len(prediction.logits):
        return found
    if spec.task is Task.REGRESSION:
        found["numbers"] = [[name, float(v)] for name, v in zip(spec.labels, prediction.logits, strict=True)]
        return found
    probabilities = spec.probabilities(prediction.logits[None])[0]
    bars = sorted(zip(spec.labels, probabilities.tolist(), strict=True), key=lambda bar: -bar[1])
    found["bars"] = [{"label": name, "probability": value} for name, value in bars]
    return found


def _cost(asked: Asked, plaintext: Plaintext | None) -> Json:
    stats = asked.stats
    stages: Sequence[tuple[str, float]] = [
        ("protect", stats.encrypt_ms),
        ("network", stats.network_ms),
        ("server", stats.server_ms),
        ("read", stats.decrypt_ms),
    ]
    up, down = (sum(len(getattr(p, side)) for p in asked.passed) for side in ("up", "down"))
    found: dict[str, Any] = {
        "embed_ms": stats.embed_ms,
        "total_ms": sum(ms for _, ms in stages),
        "stages": [{"name": name, "ms": ms} for name, ms in stages],
        "bytes": {"up": up or stats.bytes_up, "down": down or stats.bytes_down},
        "plaintext": None,
    }
    if plaintext is not None:
        found["plaintext"] = {"ms": plaintext.ms, "up": plaintext.bytes_up, "down": plaintext.bytes_down}
    return found


def _number(value: float) -> float | None:
    """None for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None
