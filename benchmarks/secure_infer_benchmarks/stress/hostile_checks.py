"""What an answer to a hostile input may be; and where, at the end, nothing of the inputs may be found."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from secure_infer.errors import CATALOGUE, InternalFault
from secure_infer.v1 import inference_pb2, mpc_pb2
from secure_infer.wire.status import DOMAIN
from secure_infer_benchmarks.stress.hostile_inputs import Input
from secure_infer_benchmarks.stress.hostile_layout import heads

_DETAILS = "grpc-status-details-bin"
_GRPC_ITSELF = {
    "UNIMPLEMENTED": re.compile(r"Method not found!|.*", re.DOTALL),
    "RESOURCE_EXHAUSTED": re.compile(
        r".*(larger than max|[Mm]etadata|Concurrent RPC limit|trailing metadata).*", re.DOTALL
    ),
    "NOT_FOUND": re.compile(r""),  # a health check of an unknown service
    "OUT_OF_RANGE": re.compile(r".*exceeds.*", re.DOTALL),
}
"""Statuses that gRPC or its health service give on their own."""

_TELLTALE = re.compile(r'Traceback|File "|\.py\b|/tmp/|/home/|/usr/|/root/|site-packages|0x[0-9a-f]{8}|Error\(')
_NAMES = re.compile(r"'[^']{0,66}'|\"[^\"]{0,66}\"|[0-9a-f]{12}…")
"""What a caller said as a name may be said back, in quotes and cut; and the beginning of a digest."""

LONGEST_TEXT = 1000
_WINDOW = 16
"""Bytes of a request in a row that a refusal does not hold by chance. Twelve are not enough: `ciphertexts:` begins a refusal, and
is a tensor's name with the next field's tag in a request."""
_SHORT = 5.0  # seconds; callers who give up before that are not owed an answer


def refused(made: Input, code: str, text: str, trailing: Iterable[tuple[str, Any]], canary: bytes) -> tuple[str, str]:
    """(outcome, problem) of a status other than OK; the problem is "" where that may be."""
    pairs = [(name, value) for name, value in trailing]
    reason, status = _reason(pairs)
    short = made.seconds < _SHORT  # what the server answers may come together with the end
    problem = _leak(made, text, pairs, canary)
    if problem:
        return reason or code, problem
    if reason == InternalFault.reason:
        return reason, f"an unexpected fault: {text}"
    if reason:
        known = status == code or (code == "CANCELLED" and made.hangs_up) or (code == "DEADLINE_EXCEEDED" and short)
        return reason, "" if known else f"{reason} came as {code}, not {status}"
    if (code == "CANCELLED" and made.hangs_up) or (code == "DEADLINE_EXCEEDED" and short):
        return "abandoned", ""
    if code in _GRPC_ITSELF and _GRPC_ITSELF[code].fullmatch(text):
        return code, ""
    return code, f"{code} without a reason of the catalogue: {text[:200]!r}"


def _reason(trailing: Sequence[tuple[str, Any]]) -> tuple[str, str]:
    """(reason, status) of the catalogue; empty where there is none."""
    for name, value in trailing:
        if name != _DETAILS:
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.domain == DOMAIN and info.reason in CATALOGUE:
                return info.reason, CATALOGUE[info.reason].status
    return "", ""


def _leak(made: Input, text: str, trailing: Sequence[tuple[str, Any]], canary: bytes) -> str:
    said = _NAMES.sub("", text).encode("utf-8", "surrogateescape")
    everything = b"".join(value if isinstance(value, bytes) else value.encode() for _, value in trailing)
    everything = said + everything.replace(text.encode("utf-8", "surrogateescape"), b"")
    if any(form in everything for form in forms(canary)):
        return f"a refusal holds the canary: {text[:200]!r}"
    if _TELLTALE.search(text):
        return f"a refusal holds a path, a trace or an object: {text[:200]!r}"
    if len(text) > LONGEST_TEXT:
        return f"a refusal of {len(text)} characters"
    if len(text) % 16 == 0:  # some of them: it takes long
        sent = b"".join(made.messages)[:40_000]
        for at in range(len(said) - _WINDOW):
            if said[at : at + _WINDOW] in sent:
                return f"a refusal holds bytes of the request: {text[:200]!r}"
    return ""


def forms(canary: bytes) -> list[bytes]:
    """How bytes look where they should not be: themselves, in hex, in base64 at any of its three places."""
    coded = [base64.b64encode(b"\0" * shift + canary)[4 : -(-4 * len(canary) // 3) & ~3] for shift in range(3)]
    return [canary, canary.hex().encode(), *coded]


def answered(made: Input, data: bytes) -> str:
    """The problem with an answer to a message that was taken; "" where it has to be believed."""
    if len(made.messages) != 1:
        return ""
    method = made.method.rpartition("/")[2]
    if "AdminService/" in made.method:
        return "an administrative call was answered"
    sent = made.messages[0]
    try:
        if method == "Infer":
            return _infer(inference_pb2.InferRequest.FromString(sent), inference_pb2.InferResponse.FromString(data))
        if method == "InferShare":
            asked, found = mpc_pb2.InferShareRequest.FromString(sent), mpc_pb2.InferShareResponse.FromString(data)
            return "" if asked.request_id == found.request_id else "crossed: another request's id"
        if method == "EvaluatePlaintext":
            return _plaintext(
                inference_pb2.EvaluatePlaintextRequest.FromString(sent),
                inference_pb2.EvaluatePlaintextResponse.FromString(data),
            )
    except DecodeError:
        return "an answer to a message that is none, or that is none itself"
    return ""


def _infer(asked: inference_pb2.InferRequest, found: inference_pb2.InferResponse) -> str:
    if (asked.request_id, asked.model_digest) != (found.request_id, found.model_digest):
        return "crossed: another request's id or model"
    if found.WhichOneof("result") == "answers" and len(found.answers.answers) != len(asked.queries):
        return f"{len(found.answers.answers)} answers to {len(asked.queries)} queries"
    return ""


def _plaintext(asked: inference_pb2.EvaluatePlaintextRequest, found: inference_pb2.EvaluatePlaintextResponse) -> str:
    head = heads()[asked.model]
    rows = np.frombuffer(asked.rows, "<f8").reshape(-1, head.contract.features)
    logits = np.frombuffer(found.logits, "<f8").reshape(len(rows), -1)
    return "" if np.allclose(logits, head.evaluate(rows), atol=1e-9) else "wrong: not the head's logits"


# At the end.

_BAD_LOGS = re.compile(
    rb"fault [0-9a-f]{16} in|Traceback|Exception deserializing|core dumped|Segmentation|terminate called"
)


_REPLACED = b"another takes its place"
_VARYING = re.compile(rb'"time": "[^"]*"|[0-9a-f]{16,}')


def _said(line: bytes) -> str:
    return line[:500].decode("utf-8", "replace")


@dataclass
class Searched:
    """bytes: that were read. problems: canaries anywhere, faults and traces in logs. replaced: gRPC's servers that ended
    themselves, and that others took the place of."""

    bytes: int = 0
    replaced: int = 0
    problems: list[str] = field(default_factory=list)


def searched(folder: Path, apart: Sequence[str], canary: bytes) -> Searched:
    """Every file below, those folders `apart`."""
    found, wanted = Searched(), forms(canary)
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.relative_to(folder).parts[0] in apart:
            continue
        data = path.read_bytes()
        found.bytes += len(data)
        found.problems += [f"{path.name} holds the canary" for form in wanted if form in data]
        if path.suffix == ".log":
            bad = [_VARYING.sub(b"...", line) for line in data.splitlines() if _BAD_LOGS.search(line)]
            found.problems += [f"{path.name}, {n} times: {_said(line)}" for line, n in Counter(bad).most_common(20)]
            found.replaced += data.count(_REPLACED)
    return found
