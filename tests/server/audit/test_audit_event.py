"""Never content: no field takes text of any length, floats, or bytes that are no digest."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_infer.errors import InternalFault
from secure_infer_server.audit import AuditLog, AuditSettings, Event
from secure_infer_server.audit.event import FIELDS

CANARY = "Patient John Canary, 53, admitted with chest pain"
EMBEDDING = np.random.default_rng(0).normal(size=384)
CONTENT: list[Any] = [
    CANARY,
    CANARY * 10,
    CANARY.encode(),
    EMBEDDING,
    EMBEDDING.tobytes(),
    EMBEDDING.tolist(),
    0.4242,
    None,
    [CANARY],
]
GOOD: dict[str, Any] = {"who": "hospital-a", "method": "Infer", "outcome": "ok"}


@pytest.mark.parametrize(
    "field", [name for name in inspect.signature(Event).parameters if name not in ("who", "request_id", "subject")]
)
def test_no_field_takes_content(field: str) -> None:
    for content in CONTENT:
        with pytest.raises(InternalFault) as refused:
            Event(**GOOD | {field: content})
        assert "Canary" not in refused.value.message
        assert "4242" not in refused.value.message


def test_an_identity_is_short_and_printable() -> None:
    for content in [*CONTENT[1:], "", "a\nb", "a\x1bb", "x" * 257]:
        with pytest.raises(InternalFault):
            Event(**GOOD | {"who": content})
    assert Event(**GOOD | {"who": "CN=Krankenhaus Süd, O=Ward 7"}).fields()["who"] == "CN=Krankenhaus Süd, O=Ward 7"


def test_what_a_client_writes_into_its_request_id_is_kept_as_a_hash(tmp_path: Path) -> None:
    audit = AuditLog(AuditSettings(tmp_path, commit=0))
    audit.record(Event(**GOOD, request_id=CANARY.encode()))
    audit.record(Event(**GOOD, request_id=EMBEDDING.tobytes()))
    audit.close()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.name != "audit.key")
    assert b'"request":"' in written
    for secret in (CANARY.encode(), b"Canary", EMBEDDING.tobytes()[:8], EMBEDDING.tobytes().hex()[:16].encode()):
        assert secret not in written


def test_whom_an_administrator_names_is_kept_as_a_hash() -> None:
    entry = Event(**GOOD, subject=CANARY)
    assert "Canary" not in entry.members
    assert entry.fields()["subject"] == hashlib.sha256(CANARY.encode()).hexdigest()


def test_counts_are_counts() -> None:
    for wrong in (-1, 1 << 53, True, 1.0, "1"):
        with pytest.raises(InternalFault):
            Event(**GOOD, records=wrong)  # type: ignore[arg-type]


def test_fields_are_the_allow_list() -> None:
    full = Event(
        **GOOD,
        model="icd10-chapter",
        model_digest=bytes(32),
        plan_digest=bytes(32),
        key_digest=bytes(32),
        records=1,
        bytes_in=2,
        bytes_out=3,
        request_id=b"id",
        stored=True,
        second_factor=True,
        subject="cn:ward-7",
    )
    assert tuple(full.fields()) == (
        "who",
        "method",
        "outcome",
        "model",
        "model_digest",
        "plan_digest",
        "key_digest",
        "records",
        "bytes_in",
        "bytes_out",
        "stored",
        "second_factor",
        "request",
        "subject",
    )
    assert set(full.fields()) == set(FIELDS)
    assert Event(**GOOD).fields() == GOOD
