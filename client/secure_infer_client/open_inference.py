"""Queries for the Open Inference Protocol (KServe's, Triton's): encrypted here, sent by any client of it, decrypted here.

    client = OpenInferenceClient("127.0.0.1:8443", model="chapters")
    query = client.encrypt(rows)
    # send query.ciphertexts as the UINT8 tensor "ciphertexts", with query.model_version, .request_id and .parameters
    logits = client.decrypt(query, products, model_version, request_id)

No stubs of the protocol are loaded: a process has room for one set of them, which is that of the software that sends.
docs/open-inference.md has the mapping, client/examples/triton_client.py a whole program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import AnswerRefused, SettingsError
from secure_infer.v1 import inference_pb2
from secure_infer_client.client import Client
from secure_infer_client.costs import in_words
from secure_infer_client.exchange import Encrypted
from secure_infer_client.session import Session

INPUT, OUTPUT, DATATYPE = "ciphertexts", "products", "UINT8"


@dataclass(frozen=True)
class Query:
    """One ModelInfer request. ciphertexts: uint8 (queries, ciphertexts a query, bytes a ciphertext)."""

    model_name: str
    model_version: str
    request_id: str
    parameters: Mapping[str, str]
    ciphertexts: NDArray[np.uint8] = field(repr=False)
    encrypted: Encrypted = field(repr=False)


class OpenInferenceClient(Client):
    """A `Client` that also encrypts what other software sends. Model, plans and keys go by our own services, at `target`.

    Takes the arguments of `Client`; raises SettingsError for two parties, which do not speak that protocol.
    """

    def __init__(self, target: str, **arguments: Any) -> None:
        super().__init__(target, **arguments)
        if not isinstance(self._session, Session):
            self.close()
            raise SettingsError("scheme: the Open Inference Protocol is a server's; two parties do not speak it")
        self._own: Session = self._session

    def encrypt(self, x: Any) -> Query:
        """Rows x (B, d) as one request; the server has been sent the public keys for it.

        Raises InvalidInput when x breaks the model's input contract or is more than one call takes, UnsupportedHead where
        only batches are offered, and what asking for the model and sending keys raises in `predict`.
        """
        with self._calls.turn():
            found = self._own.encrypt(self._own.spec.contract.check(x))
            request = found.request
            request.request_id = request.request_id.hex().encode()
            pieces = [data for query in request.queries for data in query.ciphertexts]
            shape = len(request.queries), found.plan.ciphertexts, found.plan.ciphertext_bytes
            return Query(
                request.model,
                f"{request.model_digest.hex()}-{request.plan_digest.hex()}",
                request.request_id.decode(),
                {"key_digest": request.key_digest.hex()} if request.key_digest else {},
                np.frombuffer(b"".join(pieces), np.uint8).reshape(shape),
                found,
            )

    def upload_keys(self, query: Query) -> None:
        """Send the query's public keys once more: after UNKNOWN_KEY, when the server forgot them. Then send the query again."""
        with self._calls.turn():
            self._own.upload_again(query.encrypted)

    def decrypt(
        self, query: Query, products: NDArray[np.uint8], model_version: str, request_id: str
    ) -> NDArray[np.float64]:
        """Logits (B, K), float64, of the answer's tensor "products" (B, products, bytes), its version and its id.

        Raises AnswerRefused when the answer is another request's or fails its check; the key is destroyed then, and it must
        not be retried. InvalidInput when the query's key was destroyed before.
        """
        if products.dtype != np.uint8 or products.ndim != 3:
            raise AnswerRefused(f"answer: expected uint8 (B, products, bytes), got {products.dtype} {products.shape}")
        answered = inference_pb2.InferResponse(request_id=request_id.encode())
        if model_version == query.model_version:
            answered.model_digest = query.encrypted.request.model_digest
        for answer in products:
            answered.answers.answers.add(products=[product.tobytes() for product in answer])
        digest, plan = query.encrypted.request.model_digest.hex(), in_words(query.encrypted.plan)
        with self._recording.call("decrypt", len(query.ciphertexts), digest) as outcome:
            with self._calls.turn():
                logits = self._own.decrypt(query.encrypted, answered)
            outcome.of(plan, digest, lambda: self.spec.decide(logits))
        return logits
