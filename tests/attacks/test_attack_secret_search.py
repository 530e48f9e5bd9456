"""Claim: the server receives neither the secret key nor the text nor its embedding, in any form.

Adversary: the server, or whoever reads its socket without TLS: it keeps every byte of a whole session (model, key
upload, texts classified, rows predicted) and searches them for what it would like to have.
Unprotected variant: a session in which each form was planted; the same search finds every one of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from adversary import Served, secret_polynomial, upload
from numpy.typing import NDArray

from secure_infer.ckks import seal, sealio
from secure_infer.ckks.coefficient import CoefficientPlan, pack_input
from secure_infer.ckks.residues import pack_residues, packed_bytes, reduce
from secure_infer.errors import SecureInferError
from secure_infer_client import Client
from secure_infer_client.keys import SecretKey
from secure_infer_client.recorder import Recorder

TEXT = "Quetiapine zygomatic fracture oropharyngeal haemoptysis since Thursday"
PIECES = 16
SHORTEST = 16


class Words:
    """An embedder that needs no model: a text seeds its row."""

    identity = "adversary/words"

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.stack([np.random.default_rng(zlib.crc32(t.encode())).uniform(-1, 1, 16) for t in texts])


def secret_forms(plan: CoefficientPlan, key: SecretKey) -> dict[str, bytes]:
    """The secret key in every encoding that it has, had or could be sent in."""
    secret, primes = secret_polynomial(plan, key), plan.parameters.primes
    ring = seal.ring(plan.parameters)
    coefficients = reduce(secret.astype(np.int64), primes)
    ntt = ring.ntt(secret.astype(np.int64))
    saved = sealio.saved(key._key)
    body = sealio.body(saved)
    assert ntt.astype("<u8").tobytes() in body  # so that these are SEAL's own bytes of this very key
    return {
        "int8": secret.tobytes(),
        "int64": secret.astype("<i8").tobytes(),
        "float64": secret.astype("<f8").tobytes(),
        "digits 0, 1, 2 in bytes": (secret % 3).astype(np.uint8).tobytes(),
        "two bits a coefficient": np.packbits(np.stack([secret < 0, secret != 0], axis=1)).tobytes(),
        "bits of the signs": np.packbits(secret < 0).tobytes(),
        "bits of the support": np.packbits(secret != 0).tobytes(),
        "coefficients as residues": coefficients.astype("<u8").tobytes(),
        "coefficients as packed residues": pack_residues(coefficients, primes),
        "NTT residues": ntt.astype("<u8").tobytes(),
        "NTT residues, packed": pack_residues(ntt, plan.parameters.data_primes),
        "SEAL stream": sealio.stream(body),
        "SEAL stream, zstd": saved,
        "SEAL stream, zlib": zlib.compress(body),
        "rows that decrypt": key.rows(plan).astype("<f8").tobytes(),
    }


def input_forms(plan: CoefficientPlan, row: NDArray[np.float64]) -> dict[str, bytes]:
    """An embedding, and what it becomes on its way to encryption."""
    integers, primes = pack_input(plan, row)[0], plan.parameters.data_primes
    residues = reduce(integers, primes)
    ntt = seal.ring(plan.parameters).ntt(integers)
    width = packed_bytes(plan.features, primes[0].bit_length())
    return {
        "embedding, float64": row.astype("<f8").tobytes(),
        "embedding, float32": row.astype("<f4").tobytes(),
        "embedding, big-endian": row.astype(">f8").tobytes(),
        "scaled integers": integers[: plan.features].astype("<i8").tobytes(),
        "scaled integers, packed": pack_residues(residues, primes)[:width],
        "plaintext in NTT form": ntt.astype("<u8").tobytes(),
        "plaintext in NTT form, packed": pack_residues(ntt, primes),
    }


def text_forms(text: str) -> dict[str, bytes]:
    utf8, utf16 = text.encode(), text.encode("utf-16-le")
    forms = {"text": utf8, "text, UTF-16": utf16, "text, zlib": zlib.compress(utf8)}
    return forms | {f"word {word}": word.encode() for word in text.split() if len(word) > 6}


def found(record: bytes, forms: dict[str, bytes]) -> set[str]:
    """Names of the forms of which any piece is in the record. Pieces, since HTTP/2 cuts long messages into frames."""
    names = set()
    for name, form in forms.items():
        size = max(SHORTEST, len(form) // PIECES)
        pieces = [form[i : i + size] for i in range(0, len(form), size)]
        # A last piece that is short would be found by chance, and one of equal bytes everywhere.
        if any(piece in record for piece in pieces if len(piece) == min(size, len(form)) and len(set(piece)) > 1):
            names.add(name)
    return names


@pytest.fixture(scope="module")
def session(served: Served) -> tuple[bytes, dict[str, bytes], CoefficientPlan]:
    """(everything that crossed the socket, what to search it for, the plan)."""
    rng = np.random.default_rng(13)
    row = rng.uniform(-1, 1, (3, 16))
    with Recorder(served.address) as recorder:
        with Client(recorder.address, model=served.model, embedder=Words()) as client:
            client.classify([TEXT])
            client.predict(row)
            client.explain(TEXT)
            plan = client.plan
            key = client._session._secrets.by_ring.get(plan.parameters)
            assert key is not None
            forms = secret_forms(plan, key) | input_forms(plan, row[0]) | text_forms(TEXT)
            forms |= {f"text's {name}": form for name, form in input_forms(plan, client.embed([TEXT])[0]).items()}
            client.predict(row)
            public = key.upload(plan).data
        record = bytes(recorder.sent) + bytes(recorder.received)
    # The search looks at the right bytes: the public key is in them.
    assert found(record, {"public key": public}) == {"public key"}
    return record, forms, plan


def test_nothing_of_the_secret_the_text_or_the_embedding_is_sent(session: tuple) -> None:
    """By chance a piece of 16 random bytes matches with probability below 1e-30; words are plain letters, 7 or more."""
    record, forms, _ = session
    assert len(record) > 100_000
    assert found(record, forms) == set()


def test_the_search_finds_every_planted_form(served: Served, session: tuple) -> None:
    """Each form sent where a key is expected, past the same recorder, to the same server, which refuses them all."""
    _, forms, plan = session
    missed = set()
    with Recorder(served.address) as recorder:
        for name, form in forms.items():
            start = len(recorder.sent)
            with pytest.raises(SecureInferError):
                upload(recorder.address, served.model, plan, form)
            if name not in found(bytes(recorder.sent[start:]), {name: form}):
                missed.add(name)
    assert not missed
