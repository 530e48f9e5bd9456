"""Models as messages."""

from __future__ import annotations

import math

import numpy as np

from secure_infer.errors import InvalidHead, PlanRefused
from secure_infer.heads import InputContract, Layer, ModelSpec, Task
from secure_infer.heads.layers import layer_from
from secure_infer.heads.split import contract_after
from secure_infer.v1 import models_pb2


def to_proto(spec: ModelSpec) -> models_pb2.ModelSpec:
    return models_pb2.ModelSpec(
        name=spec.name,
        digest=bytes.fromhex(spec.digest),
        features=spec.contract.features,
        outputs=spec.outputs,
        labels=spec.labels,
        input_bound=spec.contract.bound,
        input_norm=spec.contract.norm,
        embedder=spec.embedder or "",
        temperature=spec.temperature,
        layers=spec.layers,
        task=spec.task,
        abstain_below=spec.abstain_below,
        public_layers=[_layer_to_proto(layer) for layer in spec.public_layers],
    )


def _layer_to_proto(layer: Layer) -> models_pb2.PublicLayer:
    return models_pb2.PublicLayer(
        kind=layer.kind,
        parameters=[
            models_pb2.Tensor(name=name, shape=array.shape, values=array.astype("<f8").tobytes())
            for name, array in layer.arrays().items()
        ],
    )


def _layer_from_proto(message: models_pb2.PublicLayer) -> Layer:
    """The layer; raises InvalidHead when its numbers do not make one."""
    arrays = {}
    for tensor in message.parameters:
        if len(tensor.shape) > 2 or len(tensor.values) != 8 * math.prod(tensor.shape):
            raise InvalidHead(f"public layer: {len(tensor.values)} bytes for shape {tuple(tensor.shape)}")
        arrays[tensor.name] = np.frombuffer(tensor.values, "<f8").reshape(tuple(tensor.shape))
    return layer_from(message.kind, arrays)


def from_proto(message: models_pb2.ModelSpec) -> ModelSpec:
    """The model; raises PlanRefused when its figures contradict each other."""
    try:
        task = Task(message.task)
    except ValueError:
        raise PlanRefused(f"model {message.name!r}: unknown task {message.task[:32]!r}") from None
    counts_fit = len(message.labels) == task.labels(message.outputs) and len(message.temperature) in (
        1,
        message.outputs,
    )
    sane = all(0 < t < math.inf for t in message.temperature)
    if message.HasField("abstain_below"):
        sane = sane and 0 < message.abstain_below < 1
    if not message.features or not counts_fit or not sane:
        raise PlanRefused(f"model {message.name!r}: labels, outputs and temperature do not fit together")
    try:
        contract = InputContract(
            message.features, message.input_bound, message.input_norm if message.HasField("input_norm") else None
        )
        public_layers = tuple(_layer_from_proto(layer) for layer in message.public_layers)
        width = message.features
        for layer in public_layers:
            width = layer.width_out(width)
        contract_after(public_layers, contract)
    except InvalidHead as problem:
        raise PlanRefused(f"model {message.name!r}: {problem.message}") from None
    return ModelSpec(
        name=message.name,
        digest=message.digest.hex(),
        contract=contract,
        outputs=message.outputs,
        labels=tuple(message.labels),
        task=task,
        embedder=message.embedder or None,
        temperature=tuple(message.temperature),
        layers=tuple(message.layers),
        abstain_below=message.abstain_below if message.HasField("abstain_below") else None,
        public_layers=public_layers,
    )
