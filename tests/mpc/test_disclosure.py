"""Who learns what follows the program: who holds weights, what is answered, whether a dealer takes part."""

from __future__ import annotations

from secure_infer.heads import ReLU
from secure_infer.mpc.compiler import compile_head
from secure_infer.mpc.disclosure import fails_unseen, failures, in_a_line, who_learns
from secure_infer.mpc.program import Answers, Comparisons, Weights
from shared import hidden_head, linear_head


def told(**settings: object) -> dict[str, str]:
    head = settings.pop("head", linear_head(8, 3))
    return {one.who: one.learns for one in who_learns(compile_head(head, **settings).program)}  # type: ignore[arg-type]


def test_a_dealer_counts_where_it_takes_part() -> None:
    local, dealt = told(), told(head=hidden_head((8, 6, 3)))
    assert local["dealer"].startswith("nothing")
    assert local["dealer with a party"] == "no more than the party by itself"
    assert "records and answers" in dealt["dealer with a party"]


def test_shared_weights_are_lost_to_collusion_alone() -> None:
    replicated, shared = told(), told(weights=Weights.SHARED)
    assert "in the clear" in replicated["each party"]
    assert "uniform by itself, how many" in shared["each party"]
    for who in ("both parties together", "dealer with a party"):
        assert "the model" in shared[who]
        assert "the model" not in replicated[who]


def test_failures_that_nobody_sees() -> None:
    relu = hidden_head((8, 6, 3), ReLU())
    seen = compile_head(relu).program
    assert not fails_unseen(seen)
    assert failures(seen).endswith("which the client sees and asks again")
    assert not fails_unseen(compile_head(hidden_head((8, 6, 3)), comparisons=Comparisons.CRYPTEN).program)
    theirs = compile_head(relu, comparisons=Comparisons.CRYPTEN).program
    assert fails_unseen(theirs)
    assert failures(theirs).endswith("unseen")
    label = compile_head(relu, answers=Answers.LABEL).program
    assert fails_unseen(label)
    assert failures(label).endswith("wrong, unnoticed")
    assert failures(compile_head(linear_head(8, 3)).program) == "nothing is truncated that could fail"


def test_labels_alone() -> None:
    found = told(answers=Answers.LABEL)
    assert found["client"].startswith("labels and nothing else")
    assert "whether a label of its choice was the answer" in found["a party that deviates"]
    signs = told(answers=Answers.LABEL, head=linear_head(8, 1))
    assert signs["a party that deviates"] == "may change answers unseen"
    program = compile_head(linear_head(8, 3), answers=Answers.LABEL, weights=Weights.SHARED).program
    assert "nothing for this model" in in_a_line(compile_head(linear_head(8, 3)).program)
    assert in_a_line(program) == "client: labels; each party: shapes and its share of the model; dealer: shapes"
