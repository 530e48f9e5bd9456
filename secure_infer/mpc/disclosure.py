"""Who learns what when two parties evaluate a program, in a line each; SECURITY.md has the claims and their attacks."""

from __future__ import annotations

from dataclasses import dataclass

from secure_infer.mpc.program import Affine, Comparisons, Largest, Program, Rectify, Weights


@dataclass(frozen=True)
class Disclosure:
    """What one of those involved learns; several together, when they collude."""

    who: str
    learns: str


def who_learns(program: Program) -> list[Disclosure]:
    """One line for each of those involved, then for those that may collude."""
    return [
        Disclosure("client", _client(program)),
        Disclosure("each party", f"{_party(program)}; of records and answers nothing: its half is uniform by itself"),
        Disclosure("dealer", _dealer(program)),
        Disclosure("both parties together", _everything(program)),
        Disclosure("dealer with a party", _collusion(program)),
        Disclosure("a party that deviates", _deviation(program)),
    ]


def in_a_line(program: Program) -> str:
    """ "client: logits; each party: shapes and the model; dealer: shapes"."""
    model = "its share of the model" if program.weights is Weights.SHARED else "the model"
    dealer = "shapes" if program.recipe(1) else "nothing for this model, which takes no correlations"
    return f"client: {'labels' if program.label_only else 'logits'}; each party: shapes and {model}; dealer: {dealer}"


def failures(program: Program) -> str:
    """What becomes of a record that truncation spoils, and how often one is.

    A failure before CrypTen's ReLU can turn a positive number into zero, which stays in range.
    """
    if not program.failure_probability:
        return "nothing is truncated that could fail"
    spoilt = f"truncation spoils a record with probability {program.failure_probability:.0e}"
    if program.label_only:
        return f"{spoilt}, and its label may then be wrong, unnoticed"
    if fails_unseen(program):
        return f"{spoilt}: out of range, which the client sees and asks again, or in range after CrypTen's ReLU, unseen"
    return f"{spoilt}, which the client sees and asks again"


def fails_unseen(program: Program) -> bool:
    """Whether an answer can be wrong after a truncation that failed, and pass the client's check of its range."""
    rectified = any(isinstance(step, Rectify) for step in program.steps)
    hidden = program.label_only or (rectified and program.comparisons is Comparisons.CRYPTEN)
    return hidden and program.failure_probability > 0


def _client(program: Program) -> str:
    if program.label_only:
        return "labels and nothing else: no probability, no margin; many of them still trace where the model decides"
    if all(isinstance(step, Affine) for step in program.steps):
        return "logits; of the model what they tell: about as many answers as there are inputs give an affine head away"
    return "logits; of the model what they tell: many answers let it be imitated, and hidden layers are no proof against that"


def _party(program: Program) -> str:
    shared = program.weights is Weights.SHARED
    weights = "a share of the weights, uniform by itself" if shared else "the model in the clear"
    return f"{weights}, how many records are asked and when"


def _dealer(program: Program) -> str:
    if program.recipe(1) is None:
        return "nothing: no correlations are taken"
    return "shapes and how often they are evaluated; no records, answers or weights"


def _collusion(program: Program) -> str:
    if program.recipe(1) is None:
        return "no more than the party by itself"
    return f"what the parties open is masked by words that the dealer knows: {_everything(program)}"


def _everything(program: Program) -> str:
    return "records, answers and the model" if program.weights is Weights.SHARED else "records and answers"


def _deviation(program: Program) -> str:
    if isinstance(program.steps[-1], Largest):
        return (
            "may change answers unseen, and learns whether a label of its choice was the answer from each that is asked "
            "again; clients count those and stop"
        )
    if program.label_only:
        return "may change answers unseen"
    return (
        "may change answers unseen within their range, and learns about a bit of an answer from each that is asked again; "
        "clients count those and stop"
    )
