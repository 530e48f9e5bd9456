"""Valid messages to make hostile ones of: for every method what a client would send, built from what the servers offer.

Ciphertexts and keys are uniform residues from a seeded generator. To a server they look like anybody's: it evaluates them,
and only whoever expects to read an answer would notice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from google.protobuf.message import Message

from secure_infer.mpc.program import Program
from secure_infer.v1 import admin_pb2, models_pb2, models_pb2_grpc, mpc_pb2, plans_pb2
from secure_infer.wire import mpc as wire_mpc
from secure_infer_benchmarks.stress import hostile_ckks
from secure_infer_benchmarks.stress.hostile_ckks import REQUEST_ID, Key
from secure_infer_benchmarks.stress.hostile_layout import HOSTILE, Served
from secure_infer_benchmarks.stress.mutations import Material
from secure_infer_benchmarks.stress.wires import channel

LONGEST_SPLICED = 64 << 10
OTHER = "cn:ward-7"
_ADMINISTRATIVE: dict[str, Message] = {
    "ListHeldKeys": admin_pb2.ListHeldKeysRequest(owner=OTHER, limit=3),
    "DeleteHeldKeys": admin_pb2.DeleteHeldKeysRequest(owner=OTHER, all=True),
    "ListServedModels": admin_pb2.ListServedModelsRequest(),
    "ReloadModels": admin_pb2.ReloadModelsRequest(),
    "GetAuditStatus": admin_pb2.GetAuditStatusRequest(),
    "ListBudgets": admin_pb2.ListBudgetsRequest(identity=OTHER, limit=3),
    "ResetBudgets": admin_pb2.ResetBudgetsRequest(identity=OTHER),
}


@dataclass(frozen=True)
class Corpus:
    """streams: by method, valid calls as their messages. keys: one for each plan; the first is short. recipes: a dealer's, as
    JSON. starts: of lanes, as a leader writes them. material: for mutations."""

    streams: Mapping[str, Sequence[Sequence[bytes]]]
    keys: Sequence[Key]
    recipes: Sequence[bytes]
    starts: Sequence[bytes]
    material: Material = field(default=Material())


def build(served: Served, seed: int, canary: bytes) -> Corpus:
    """Asks the servers what they offer; the same offers and seed give the same corpus."""
    rng = np.random.default_rng(seed)
    models = [_model(served, "ckks", name) for name in ("small", "hidden")]
    shared = [_model(served, "party0", name) for name in ("small", "relu", "squares")]
    streams, keys, plans = hostile_ckks.calls(rng, models)
    streams |= {
        "ModelService/ListModels": [[b""]],
        "ModelService/GetModel": [
            [models_pb2.GetModelRequest(model=name, privacy=privacy).SerializeToString()]
            for name in ("small", "hidden", "relu")
            for privacy in plans_pb2.Privacy.values()
        ],
        "PartyService/InferShare": [[_half(rng, model)] for model in shared],
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": [[b":\0"], [b"\x1a\x05small", b":\0"]],
        **{f"AdminService/{name}": [[message.SerializeToString()]] for name, message in _ADMINISTRATIVE.items()},
    }
    recipes, starts = [], []
    for model in shared:
        program = wire_mpc.program_from_proto(model.program)
        recipes += _recipes(program, model.model.digest)
        starts.append(_start(model, program))
    streams["DealerService/Deal"] = [_deal(party, recipes) for party in (0, 1)]
    messages = [m for calls in streams.values() for call in calls for m in call if len(m) < LONGEST_SPLICED]
    digests = [bytes(32), hashlib.sha256(b"").digest(), b"\xff" * 32, REQUEST_ID]
    digests += [digest for key in keys for digest in (key.plan, key.digest)]
    digests += [model.model.digest for model in (*models, *shared)]
    material = Material(digests, hostile_ckks.blobs(rng, plans), messages, canary)
    return Corpus(streams, keys, recipes, starts, material)


def _model(served: Served, where: str, name: str) -> models_pb2.GetModelResponse:
    with channel(served, where, HOSTILE) as opened:
        found = models_pb2_grpc.ModelServiceStub(opened).GetModel(models_pb2.GetModelRequest(model=name), timeout=60)
        assert isinstance(found, models_pb2.GetModelResponse)
        return found


# Secret sharing.


def _half(rng: np.random.Generator, model: models_pb2.GetModelResponse) -> bytes:
    program = wire_mpc.program_from_proto(model.program)
    message = mpc_pb2.InferShareRequest(
        request_id=REQUEST_ID,
        model=model.model.name,
        model_digest=model.model.digest,
        program_digest=bytes.fromhex(program.digest),
        rows=1,
        share=rng.bytes(8 * program.features),
    )
    return message.SerializeToString()


def _recipes(program: Program, digest: bytes) -> list[bytes]:
    found = (program.recipe(rows, digest.hex()) for rows in (1, 8))
    return [recipe.as_json() for recipe in found if recipe is not None]


def _deal(party: int, recipes: Sequence[bytes]) -> list[bytes]:
    wants = [mpc_pb2.DealRequest(want=mpc_pb2.DealWant(recipe=recipe, count=2)) for recipe in recipes]
    first = mpc_pb2.DealRequest(hello=mpc_pb2.DealHello(party=party))
    return [message.SerializeToString() for message in (first, *wants)]


def _start(model: models_pb2.GetModelResponse, program: Program) -> bytes:
    entry = {
        "request": REQUEST_ID.hex(),
        "client": "anonymous",
        "model": model.model.name,
        "model_digest": model.model.digest.hex(),
        "program": program.digest,
        "rows": 1,
        "bundle": "",
        "opens": False,
    }
    return json.dumps(entry, sort_keys=True).encode()
