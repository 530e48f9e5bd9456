"""The share file `NAME.share`: one party's half of a model whose weights neither party may know.

    metadata: {"format": 2, "party": 0, "spec": {...}, "program": {...}, "commitments": ["<sha256>", "<sha256>"],
               "nonce": "<32 bytes, hex>"}
    tensors "0.weight", "0.bias", "1.weight", ...   words (uint64), this party's shares
            "public.0.weight", ...                  float64, layers that clients evaluate

Shares are uniform, so a file by itself says nothing of the weights beyond the public facts in its header. Each half's
commitment is the SHA-256 of its nonce and tensors; both are in both files, and the model's digest is that of the facts and
the commitments: parties that hold halves of different dealings disagree on it. The nonce is in its own half alone: without
one, whoever guesses the weights would know the other half, and be sure of both. For the same reason the head's own digest
is left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secure_infer.errors import InvalidHead, PlanRefused
from secure_infer.heads import artifact
from secure_infer.heads.contract import InputContract
from secure_infer.heads.head import Head
from secure_infer.heads.layers import Layer, layer_from
from secure_infer.heads.spec import ModelSpec
from secure_infer.heads.task import Task
from secure_infer.mpc.compiler import compile_head
from secure_infer.mpc.evaluate import Tensor
from secure_infer.mpc.program import Affine, Answers, Comparisons, Program, Weights
from secure_infer.mpc.sharing import split
from secure_infer.mpc.streams import fresh_key

FORMAT = 2
SUFFIX = ".share"


@dataclass(frozen=True, eq=False)
class ShareFile:
    """One party's half. tensors: its shares, in the program's order."""

    party: int
    spec: ModelSpec
    program: Program
    tensors: tuple[Tensor, ...]


def share_model(
    head: Head,
    directories: Sequence[Path],
    name: str,
    *,
    error: float | None = None,
    answers: Answers = Answers.LOGITS,
    comparisons: Comparisons = Comparisons.TABLES,
) -> tuple[Program, tuple[Path, Path]]:
    """Write both halves, NAME.share in each of two directories; returns the program and the paths.

    Shares come from the operating system's randomness and are new at every call. Raises UnsupportedHead.
    """
    compiled = compile_head(head, error=error, weights=Weights.SHARED, answers=answers, comparisons=comparisons)
    halves: tuple[list[Tensor], list[Tensor]] = ([], [])
    for tensor in compiled.tensors:
        weight, bias = split(tensor.weight), split(tensor.bias)
        for half, own_weight, own_bias in zip(halves, weight, bias, strict=True):
            half.append(Tensor(own_weight, own_bias))
    spec = ModelSpec.of(name, head)
    nonces = [fresh_key().hex() for _ in halves]
    commitments = [_commitment(nonce, half) for nonce, half in zip(nonces, halves, strict=True)]
    paths = []
    for party, (half, directory) in enumerate(zip(halves, directories, strict=True)):
        header = {
            "format": FORMAT,
            "party": party,
            "spec": _spec_as_dict(spec),
            "program": compiled.program.as_dict(),
            "commitments": commitments,
            "nonce": nonces[party],
        }
        public = {
            f"public.{i}.{name}": array
            for i, layer in enumerate(spec.public_layers)
            for name, array in layer.arrays().items()
        }
        paths.append(directory / f"{name}{SUFFIX}")
        artifact.write(paths[-1], {**_named(half), **public}, header, mode=0o600)
    return compiled.program, (paths[0], paths[1])


def load(path: Path) -> ShareFile:
    """Read one half; raises InvalidHead when the file is no sound share file or was changed."""
    header, tensors = artifact.read(path, "a share file")
    try:
        if header.get("format") != FORMAT or "commitments" not in header:
            raise InvalidHead(f"expected a share file of format {FORMAT}; `secure-infer share-model` makes them")
        party, commitments = int(header["party"]), [str(c) for c in header["commitments"]]
        program = Program.from_json(json.dumps(header["program"], sort_keys=True).encode())
        half = tuple(Tensor(tensors[f"{i}.weight"], tensors[f"{i}.bias"]) for i in range(_count(program)))
        _check_shapes(program, half)
        if party not in (0, 1) or len(commitments) != 2 or _commitment(header["nonce"], half) != commitments[party]:
            raise InvalidHead("its shares do not match their commitment; the file was changed")
        public = {k.removeprefix("public."): v for k, v in tensors.items() if k.startswith("public.")}
        spec = _spec_from_dict(path.stem, header["spec"], public, _digest(header, public))
        program.check_for(spec.encrypted, spec.outputs)
    except (InvalidHead, PlanRefused) as problem:
        raise InvalidHead(f"{path.name}: {problem.message}") from problem
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, IndexError) as problem:
        raise InvalidHead(f"{path.name}: the header is missing or incomplete ({type(problem).__name__})") from problem
    return ShareFile(party, spec, program, half)


def _count(program: Program) -> int:
    return sum(isinstance(step, Affine) for step in program.steps)


def _check_shapes(program: Program, half: Sequence[Tensor]) -> None:
    for step in program.steps:
        if isinstance(step, Affine):
            tensor = half[step.tensor]
            shapes = (tensor.weight.shape, tensor.bias.shape)
            if shapes != ((step.inputs, step.width), (step.width,)) or tensor.weight.dtype != np.uint64:
                raise InvalidHead(
                    f"tensor {step.tensor}: expected words of {step.inputs} x {step.width}, got {shapes[0]}"
                )


def _named(half: Sequence[Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    return {
        f"{i}.{name}": array for i, t in enumerate(half) for name, array in (("weight", t.weight), ("bias", t.bias))
    }


def _commitment(nonce: str, half: Sequence[Tensor]) -> str:
    return artifact.hashed(bytes.fromhex(nonce), _named(half), "<u8")


def _digest(header: dict[str, Any], public: dict[str, np.ndarray[Any, Any]]) -> str:
    facts = {name: header[name] for name in ("format", "spec", "program", "commitments")}
    return artifact.hashed(json.dumps(facts, sort_keys=True).encode(), public, "<f8")


def _spec_as_dict(spec: ModelSpec) -> dict[str, Any]:
    return {
        "features": spec.contract.features,
        "input_bound": spec.contract.bound,
        "input_norm": spec.contract.norm,
        "outputs": spec.outputs,
        "labels": list(spec.labels),
        "task": str(spec.task),
        "embedder": spec.embedder,
        "temperature": list(spec.temperature),
        "layers": list(spec.layers),
        "abstain_below": spec.abstain_below,
        "public_layers": [layer.kind for layer in spec.public_layers],
    }


def _spec_from_dict(
    name: str, entry: dict[str, Any], public: dict[str, np.ndarray[Any, Any]], digest: str
) -> ModelSpec:
    task = Task(entry["task"])
    if len(entry["labels"]) != task.labels(int(entry["outputs"])):
        raise InvalidHead(f"expected {task.labels(int(entry['outputs']))} labels, got {len(entry['labels'])}")
    layers: list[Layer] = []
    for index, kind in enumerate(entry["public_layers"]):
        prefix = f"{index}."
        layers.append(layer_from(kind, {k.removeprefix(prefix): v for k, v in public.items() if k.startswith(prefix)}))
    return ModelSpec(
        name=name,
        digest=digest,
        contract=InputContract(int(entry["features"]), entry["input_bound"], entry["input_norm"]),
        outputs=int(entry["outputs"]),
        labels=tuple(str(label) for label in entry["labels"]),
        task=task,
        embedder=entry["embedder"],
        temperature=tuple(float(t) for t in entry["temperature"]),
        layers=tuple(str(kind) for kind in entry["layers"]),
        abstain_below=entry["abstain_below"],
        public_layers=tuple(layers),
    )
