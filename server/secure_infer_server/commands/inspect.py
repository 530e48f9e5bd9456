"""`secure-infer inspect`: what an artifact holds, and what a client would be told of it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from secure_infer.ckks import planner
from secure_infer.heads import Head


def run(arguments: list[str]) -> int:
    """Describe the head; prints lines, or one JSON object."""
    parser = argparse.ArgumentParser("secure-infer inspect", description=__doc__)
    parser.add_argument("head", type=Path, metavar="FILE.head")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    facts = describe(Head.load(options.head))
    if options.json:
        sys.stdout.write(json.dumps(facts) + "\n")
        return 0
    facts["training_facts"] = "among what --json prints"
    for name, value in facts.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        sys.stdout.write(f"{name.replace('_', ' '):<16} {shown}\n")
    return 0


def describe(head: Head) -> dict[str, Any]:
    """Facts of a head, as JSON can hold them."""
    linear = head.as_linear()
    return {
        "digest": head.digest,
        "layers": [layer.kind for layer in head.layers],
        "public_layers": head.public_layers,
        "features": head.features,
        "outputs": head.outputs,
        "labels": list(head.labels),
        "task": str(head.task),
        "input_bound": head.contract.bound,
        "input_norm": head.contract.norm,
        "embedder": head.embedder,
        "temperature": np.asarray(head.temperature).tolist(),
        "abstain_below": head.abstain_below,
        "largest_logit": None if linear is None else planner.largest_logit(linear, head.contract),
        "encrypted_evaluation": "coefficient plan" if linear is not None else "none yet: the head is not affine",
        "training_facts": head.facts,
    }
