"""`secure-infer inspect`: what an artifact holds, and what a client would be told of it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from secure_infer.ckks import disclosure, planner
from secure_infer.ckks.coefficient import lift
from secure_infer.errors import UnsupportedHead
from secure_infer.heads import Head
from secure_infer.heads.network import Network
from secure_infer.heads.split import contract_after, private_network, public_layers
from secure_infer.mpc import sharefile
from secure_infer.mpc.sharefile import ShareFile
from secure_infer_server.models.signatures import Signature, Signers, signature_of


def run(arguments: list[str]) -> int:
    """Describe the head, or the half; prints lines, or one JSON object."""
    parser = argparse.ArgumentParser("secure-infer inspect", description=__doc__)
    parser.add_argument("head", type=Path, metavar="FILE", help="a .head, or one half of it, a .share")
    parser.add_argument(
        "--signers", type=Path, metavar="FILE", help="Ed25519 public keys (PEM) that its signature is verified by"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    shared = options.head.suffix == sharefile.SUFFIX
    facts = describe_half(sharefile.load(options.head)) if shared else describe(Head.load(options.head))
    facts |= signature_facts(options.head, str(facts["digest"]), options.signers)
    if options.json:
        sys.stdout.write(json.dumps(facts) + "\n")
        return 0
    if not shared:
        facts["training_facts"] = "among what --json prints"
    for name, value in facts.items():
        shown = ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
        if shown is not None:
            sys.stdout.write(f"{name.replace('_', ' '):<21} {shown}\n")
    return 0


def signature_facts(file: Path, digest: str, signers: Path | None) -> dict[str, Any]:
    """Who signed the file beside it. verified: None where nobody said by whose keys. Raises InvalidHead for a signature that
    is wrong, or missing although there are signers."""
    if signers is not None:
        found = Signers.of(signers).require(file, digest)
    elif not signature_of(file).exists():
        return {"signed_by": None, "signature_serial": None, "signature_verified": None}
    else:
        found = Signature.read(signature_of(file))
    verified = None if signers is None else True
    return {"signed_by": found.key, "signature_serial": found.serial, "signature_verified": verified}


def describe(head: Head) -> dict[str, Any]:
    """Facts of a head, as JSON can hold them. Nothing is planned: whether parameters fit is what `plan` says."""
    kinds = [layer.kind for layer in head.layers]
    return {
        "digest": head.digest,
        "layers": kinds,
        "public_layers": head.public_layers,
        "visibility": disclosure.of_layers(kinds, head.public_layers),
        "features": head.features,
        "outputs": head.outputs,
        "labels": list(head.labels),
        "task": str(head.task),
        "input_bound": head.contract.bound,
        "input_norm": head.contract.norm,
        "embedder": head.embedder,
        "temperature": np.asarray(head.temperature).tolist(),
        "abstain_below": head.abstain_below,
        **_evaluation(head),
        "training_facts": head.facts,
    }


def describe_half(half: ShareFile) -> dict[str, Any]:
    """What a share file says in the clear; its words say nothing by themselves."""
    spec, program = half.spec, half.program
    return {
        "half_of_party": half.party,
        "digest": spec.digest,
        "program": program.digest,
        "layers": list(spec.layers),
        "features": spec.contract.features,
        "outputs": spec.outputs,
        "labels": list(spec.labels),
        "task": str(spec.task),
        "input_bound": spec.contract.bound,
        "input_norm": spec.contract.norm,
        "embedder": spec.embedder,
        "temperature": list(spec.temperature),
        "abstain_below": spec.abstain_below,
        "weights": str(program.weights),
        "answers": str(program.answers),
        "comparisons": str(program.comparisons),
        "error_bound": program.error_bound,
        "failure_probability": program.failure_probability,
        "rounds": program.rounds,
    }


def _evaluation(head: Head) -> dict[str, Any]:
    """The canonical form of what is evaluated under encryption, or why there is none."""
    try:
        network = private_network(head)
    except UnsupportedHead as problem:
        return {
            **dict.fromkeys(["widths", "activation_degrees", "largest_logit"]),
            "encrypted_evaluation": [],
            "not_encrypted_because": problem.message,
        }
    return {
        "widths": list(network.widths),
        "activation_degrees": [layer.degree for layer in network.hidden],
        "largest_logit": planner.largest_output(network, contract_after(public_layers(head), head.contract)),
        "encrypted_evaluation": _kinds(network),
        "not_encrypted_because": None,
    }


def _kinds(network: Network) -> list[str]:
    """The kinds of plans that take a network of that shape."""
    degrees = [layer.degree for layer in network.hidden]
    if not degrees:
        return ["coefficient", "batch"]
    few = len(degrees) == 1 and lift.count(network.features, degrees[0]) <= lift.MAX_TERMS
    many = len(degrees) == 1 or (len(degrees) == 2 and max(degrees) <= 2)
    return ["monomials"] * few + ["slots"] + ["batch"] * many
