"""What a client sends to a CKKS server, of uniform residues; see `hostile_corpus`."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secure_infer.ckks import sealio
from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.parameters import Parameters
from secure_infer.ckks.plan import Plan, Privacy, QueryPlan
from secure_infer.ckks.residues import pack_residues
from secure_infer.ckks.sealio import SEED_BYTES
from secure_infer.v1 import inference_pb2, keys_pb2, models_pb2
from secure_infer.wire import plans as wire_plans
from secure_infer_server.open_inference.v2 import inference_pb2 as open_pb2

CHUNK = 1 << 20
REQUEST_ID = b"0123456789abcdef"

Streams = dict[str, list[list[bytes]]]


@dataclass(frozen=True)
class Key:
    """What a caller uploads for a plan."""

    model: str
    plan: bytes
    data: bytes

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.data).digest()


def calls(
    rng: np.random.Generator, models: Sequence[models_pb2.GetModelResponse]
) -> tuple[Streams, list[Key], list[Plan]]:
    """Valid calls by method, a key for each plan that is offered, and those plans."""
    offered = [(model, wire_plans.from_proto(offer.plan)) for model in models for offer in model.offers]
    keys = [Key(model.model.name, bytes.fromhex(plan.digest), _key_material(rng, plan)) for model, plan in offered]
    queries, batches = [], []
    for (model, plan), key in zip(offered, keys, strict=True):
        if isinstance(plan, BatchPlan):
            batches.append(_batch(rng, model, plan, key))
        elif isinstance(plan, QueryPlan):
            queries.append([_query(rng, model, plan, key)])
    everything = keys_pb2.DeleteKeysRequest(all=True).SerializeToString()
    streams = {
        "InferenceService/Infer": queries,
        "InferenceService/InferBatch": batches,
        "InferenceService/EvaluatePlaintext": [_plaintext(rng)],
        "KeyService/UploadKeys": [upload(key, key.data) for key in keys],
        "KeyService/GetUpload": [[_reference(keys_pb2.GetUploadRequest, key)] for key in keys],
        "KeyService/ListKeys": [[b""]],
        "KeyService/DeleteKeys": [*([_reference(keys_pb2.DeleteKeysRequest, key)] for key in keys), [everything]],
    }
    return streams | _open_inference(queries[0][0]), keys, [plan for _, plan in offered]


def half(rng: np.random.Generator, degree: int, primes: Sequence[int]) -> bytes:
    """A polynomial of uniform residues, packed, and a seed."""
    residues = np.stack([rng.integers(0, prime, degree, dtype=np.uint64) for prime in primes])
    return pack_residues(residues, primes) + rng.bytes(SEED_BYTES)


def _key_material(rng: np.random.Generator, plan: Plan) -> bytes:
    primes, degree, level = plan.parameters.primes, plan.parameters.degree, plan.relinearisation
    kept = [] if plan.privacy is Privacy.INPUT_PRIVATE else [plan.public_primes]
    for _, at in plan.automorphisms:
        kept += [plan.switching_primes(at)] * at
    kept += [plan.switching_primes(level)] * level
    kept += [primes] * (len(plan.parameters.data_primes) * plan.part_keys)
    return b"".join(half(rng, degree, those) for those in kept)


def _ciphertext(rng: np.random.Generator, parameters: Parameters) -> bytes:
    return half(rng, parameters.degree, parameters.data_primes)


def _query(rng: np.random.Generator, model: models_pb2.GetModelResponse, plan: QueryPlan, key: Key) -> bytes:
    ciphertexts = [_ciphertext(rng, plan.parameters) for _ in range(plan.ciphertexts)]
    message = inference_pb2.InferRequest(
        model=model.model.name,
        model_digest=model.model.digest,
        plan_digest=key.plan,
        key_digest=key.digest if key.data else b"",
        request_id=REQUEST_ID,
        queries=[inference_pb2.Query(ciphertexts=ciphertexts)],
    )
    return message.SerializeToString()


def _batch(rng: np.random.Generator, model: models_pb2.GetModelResponse, plan: BatchPlan, key: Key) -> list[bytes]:
    header = inference_pb2.BatchHeader(
        model=model.model.name,
        model_digest=model.model.digest,
        plan_digest=key.plan,
        key_digest=key.digest if key.data else b"",
        request_id=REQUEST_ID,
        records=2,
    )
    first = inference_pb2.InferBatchRequest(header=header).SerializeToString()
    features = [_ciphertext(rng, plan.parameters) for _ in range(min(plan.features, 16))]
    return [first, *(inference_pb2.InferBatchRequest(ciphertexts=[data]).SerializeToString() for data in features)]


def _plaintext(rng: np.random.Generator) -> list[bytes]:
    rows = rng.uniform(-0.3, 0.3, (2, 8)).astype("<f8").tobytes()
    return [inference_pb2.EvaluatePlaintextRequest(model="small", rows=rows).SerializeToString()]


def upload(
    key: Key, data: bytes, *, size: int | None = None, digest: bytes | None = None, offset: int = 0
) -> list[bytes]:
    """An upload of `data` in place of a key's own; what its header says follows the data unless it is given."""
    header = keys_pb2.KeyHeader(
        model=key.model,
        plan_digest=key.plan,
        key_digest=hashlib.sha256(data).digest() if digest is None else digest,
        size=len(data) if size is None else size,
        offset=offset,
    )
    chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)] or [b""]
    first = keys_pb2.UploadKeysRequest(header=header, chunk=chunks[0])
    return [m.SerializeToString() for m in (first, *(keys_pb2.UploadKeysRequest(chunk=c) for c in chunks[1:]))]


def _open_inference(query: bytes) -> Streams:
    """Calls of the Open Inference Protocol, one of them the same query."""
    asked = inference_pb2.InferRequest.FromString(query)
    (ciphertexts,) = (list(one.ciphertexts) for one in asked.queries)
    named = {"name": asked.model, "version": f"{asked.model_digest.hex()}-{asked.plan_digest.hex()}"}
    infer = open_pb2.ModelInferRequest(
        model_name=named["name"],
        model_version=named["version"],
        id=REQUEST_ID.decode(),
        inputs=[
            open_pb2.ModelInferRequest.InferInputTensor(
                name="ciphertexts", datatype="UINT8", shape=[1, len(ciphertexts), len(ciphertexts[0])]
            )
        ],
        raw_input_contents=[b"".join(ciphertexts)],
    )
    infer.parameters["key_digest"].string_param = asked.key_digest.hex()
    messages = {
        "ServerLive": open_pb2.ServerLiveRequest(),
        "ServerReady": open_pb2.ServerReadyRequest(),
        "ServerMetadata": open_pb2.ServerMetadataRequest(),
        "ModelReady": open_pb2.ModelReadyRequest(**named),
        "ModelMetadata": open_pb2.ModelMetadataRequest(**named),
        "ModelInfer": infer,
    }
    return {f"inference.GRPCInferenceService/{name}": [[m.SerializeToString()]] for name, m in messages.items()}


def _reference(kind: Any, key: Key) -> bytes:
    named = keys_pb2.KeyReference(plan_digest=key.plan, key_digest=key.digest)
    message = kind(keys=[named]) if kind is keys_pb2.DeleteKeysRequest else kind(key=named)
    return bytes(message.SerializeToString())


def blobs(rng: np.random.Generator, plans: Sequence[Plan]) -> list[bytes]:
    """What looks like ciphertexts or keys and is none, or is a secret key."""
    made = [b"", b"a patient with pneumonia", _secret_stream()]
    for plan in {plan.parameters.degree: plan for plan in plans}.values():
        degree, primes = plan.parameters.degree, plan.parameters.data_primes
        good = _ciphertext(rng, plan.parameters)
        ternary = rng.integers(-1, 2, degree)
        secret = pack_residues(np.stack([(ternary % prime).astype(np.uint64) for prime in primes]), primes)
        seed = good[-SEED_BYTES:]
        made += [
            good,
            bytes(len(good)),  # transparent: both halves of it, were it not for the seed
            bytes(len(secret)) + seed,
            b"\xff" * len(secret) + seed,  # residues beyond every prime
            good[: len(secret) - 8] + b"\xff" * 8 + seed,
            good[: len(secret)] + bytes(SEED_BYTES),
            secret + seed,
            good[:-1],
            good + b"x",
        ]
    return made


def _secret_stream() -> bytes:
    """Bytes with the layout of a SEAL secret key."""
    words = struct.pack("<Q", 1024) + bytes(8 * 1024)
    body = struct.pack("<32sQd", bytes(32), 1024, 1.0) + sealio.stream(words)
    return sealio.stream(body)
