"""Ways to ask about a head, and what each of them hides from whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from secure_infer.mpc.program import Answers, Program, Weights

FEW_BYTES = "mobile"
"""The link for which a plan with few bytes is the quickest."""
PLAINTEXT = "plaintext"


@dataclass(frozen=True)
class Way:
    """A way to ask about a head. link: what a CKKS client takes it for when it chooses among plans."""

    name: str
    privacy: str = "both-private"
    link: str = "loopback"
    weights: Weights = Weights.REPLICATED
    answers: Answers = Answers.LOGITS


CKKS = (Way("ckks"), Way("ckks, few bytes", link=FEW_BYTES), Way("ckks, input private", privacy="input-private"))
MPC = (
    Way("mpc"),
    Way("mpc, shared weights", weights=Weights.SHARED),
    Way("mpc, shared weights, label only", weights=Weights.SHARED, answers=Answers.LABEL),
)


def described(plan: Any) -> str:
    """A plan or program in words."""
    if isinstance(plan, Program):
        return f"{plan.weights} weights, {plan.answers}, {plan.fraction} fraction bits"
    return f"{plan.kind} {plan.parameters}, {plan.ciphertexts} up"


def security(plan: Any) -> dict[str, Any]:
    """What a row of the report says of a way to ask. plan: a plan, a program, or None for the plaintext call."""
    if plan is None:
        return {
            "input_private": False,
            "model_private": True,
            "model_hidden_from": "clients",
            "bits": None,
            "smudging_bits": None,
            "rests_on": "the server's operator, who reads inputs and answers",
        }
    if isinstance(plan, Program):
        shared = plan.weights is Weights.SHARED
        return {
            "input_private": True,
            "model_private": True,
            "model_hidden_from": "clients and each party" if shared else "clients; both parties hold it",
            "bits": None,
            "smudging_bits": None,
            "rests_on": "three operators, no two of whom collude, who follow the protocol",
        }
    private = str(plan.privacy) == "both-private"
    return {
        "input_private": True,
        "model_private": private,
        "model_hidden_from": "clients" if private else "nobody: one answer tells a client the weights",
        "bits": plan.security_bits,
        "smudging_bits": plan.smudging_bits,
        "rests_on": "ring-LWE",
    }
