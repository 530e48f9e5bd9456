"""A tenant who speaks the protocol by hand: key material, references to keys, queries under whosever digest."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np

from secure_infer.ckks.answers import read_answer
from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.plan import QueryPlan
from secure_infer.ckks.queries import pack_input
from secure_infer.v1 import inference_pb2, inference_pb2_grpc, keys_pb2, keys_pb2_grpc
from secure_infer_client import transport
from secure_infer_client.keys import SecretKey
from secure_infer_server.models.served import ServedModel

CHUNK = 200_000


class Tenant:
    """One caller. key: the secret; another tenant's, where equal bytes are wanted."""

    def __init__(
        self, address: str, channel: grpc.Channel, model: ServedModel, key: SecretKey | None = None, name: str = ""
    ) -> None:
        self.address, self.model, self.metadata = address, model, (("caller", name),)
        self.plan: QueryPlan = next(iter(model.offered.values())).plan
        self.key = key or SecretKey(self.plan.parameters)
        self.data, self.digest = self.key.upload(self.plan).data, self.key.upload(self.plan).digest
        self.keys, self.inference = (
            keys_pb2_grpc.KeyServiceStub(channel),
            inference_pb2_grpc.InferenceServiceStub(channel),
        )

    def call(self, method: Any, request: Any, timeout: float = 30) -> Any:
        return transport.call(self.address, timeout, lambda: method(request, timeout=timeout, metadata=self.metadata))

    # Keys.

    def messages(self, data: bytes, offset: int = 0) -> Iterator[keys_pb2.UploadKeysRequest]:
        """The upload from there on."""
        header = keys_pb2.KeyHeader(
            model=self.model.spec.name,
            plan_digest=bytes.fromhex(self.plan.digest),
            key_digest=self.digest,
            size=len(self.data),
            offset=offset,
        )
        for start in range(offset, len(data), CHUNK) or (offset,):
            chunk = data[start : start + CHUNK]
            yield keys_pb2.UploadKeysRequest(header=header if start == offset else None, chunk=chunk)

    def upload(self, offset: int = 0) -> None:
        self.call(self.keys.UploadKeys, self.messages(self.data, offset))

    def reference(self, digest: bytes | None = None) -> keys_pb2.KeyReference:
        return keys_pb2.KeyReference(plan_digest=bytes.fromhex(self.plan.digest), key_digest=digest or self.digest)

    def held(self, digest: bytes | None = None) -> tuple[int, bool]:
        response = self.call(self.keys.GetUpload, keys_pb2.GetUploadRequest(key=self.reference(digest)))
        return response.held, response.complete

    def listed(self) -> list[bytes]:
        return [each.key.key_digest for each in self.call(self.keys.ListKeys, keys_pb2.ListKeysRequest()).keys]

    def delete(self, digest: bytes | None = None) -> int:
        request = keys_pb2.DeleteKeysRequest(keys=[self.reference(digest)])
        return int(self.call(self.keys.DeleteKeys, request).deleted)

    def delete_all(self) -> int:
        return int(self.call(self.keys.DeleteKeys, keys_pb2.DeleteKeysRequest(all=True)).deleted)

    # Queries.

    def infer(self, x: np.ndarray, digest: bytes | None = None) -> inference_pb2.InferResponse:
        """x (d,); under another key's digest where one is given."""
        query = inference_pb2.Query(ciphertexts=[self.key.encrypt(p) for p in pack_input(self.plan, x)])
        request = inference_pb2.InferRequest(
            model=self.model.spec.name,
            model_digest=self.model.digest,
            plan_digest=bytes.fromhex(self.plan.digest),
            key_digest=digest or self.digest,
            request_id=secrets.token_bytes(16),
            queries=[query],
        )
        response: inference_pb2.InferResponse = self.call(self.inference.Infer, request)
        return response

    def logits(self, x: np.ndarray) -> np.ndarray:
        (answer,) = self.infer(x).answers.answers
        return read_answer(self.plan, self.key.rows(self.plan), answer.products)

    def batch_outcome(self, plan: BatchPlan, digest: bytes) -> str:
        """What a batch under that key's digest is answered with first; no features are sent."""
        header = inference_pb2.BatchHeader(
            model=self.model.spec.name,
            model_digest=self.model.digest,
            plan_digest=bytes.fromhex(plan.digest),
            key_digest=digest,
            request_id=secrets.token_bytes(16),
            records=1,
        )
        messages = iter([inference_pb2.InferBatchRequest(header=header)])
        (first, *_) = self.call(lambda *a, **k: list(self.inference.InferBatch(*a, **k)), messages)
        return str(first.WhichOneof("event"))
