"""Work of a batch is counted where it happens; candidates are ordered by what a record takes."""

from __future__ import annotations

import numpy as np
import pytest

from secure_infer.ckks import planner
from secure_infer.ckks.batch import work
from secure_infer.ckks.batch.planner import choose
from secure_infer.ckks.costs import Operation
from secure_infer.ckks.link import Link
from secure_infer.ckks.plan import Privacy
from secure_infer.ckks.work import of_client
from secure_infer.heads import InputContract, Linear
from secure_infer.heads.network import Hidden, Network
from shared import flat_costs

BALL, LAN = InputContract(6, 1.0, 1.0), Link.parse("lan")


def network(*powers: int, size: float = 1.0) -> Network:
    """One hidden layer of three units for each highest power."""
    rng, hidden, width = np.random.default_rng(0), [], 6
    for power in powers:
        hidden.append(Hidden(size * rng.normal(size=(3, width)), np.tile([*[0.0] * power, 1.0], (3, 1))))
        width = 3
    return Network(hidden, Linear(rng.normal(size=(3, width))))


@pytest.mark.parametrize("powers", [(), (2,), (4,), (2, 2)])
@pytest.mark.parametrize("privacy", list(Privacy))
def test_keys_and_blinds_are_counted_an_answer(powers: tuple[int, ...], privacy: Privacy) -> None:
    program = choose(network(*powers), BALL, privacy=privacy, error=1e-2, smudging=2)
    found, plan = work.of_server(program), program.plan
    switched = 0 if not powers else 3
    if len(powers) == 2 or 4 in powers:
        switched += program.form.outputs  # type: ignore[union-attr]
    assert found.count(Operation.RELINEARISE) == 4 * switched
    assert found.count(Operation.BLIND) == (0 if privacy is Privacy.INPUT_PRIVATE else 3)
    assert found.count(Operation.UNPACK) == 2 * 6 * len(plan.parameters.data_primes) * plan.records
    assert of_client(plan) == work.of_client(plan)
    assert of_client(plan).count(Operation.ENCRYPT) == 6


def test_wider_heads_are_more_work() -> None:
    narrow = choose(Network([], Linear(np.full((3, 6), 0.5))), BALL, error=1e-2)
    wide = choose(Network([], Linear(np.full((30, 6), 0.5))), BALL, error=1e-2)
    assert work.of_server(wide).total(flat_costs()) > work.of_server(narrow).total(flat_costs())


@pytest.mark.parametrize("powers", [(), (2,)])
def test_candidates_by_time_a_record(powers: tuple[int, ...]) -> None:
    head = network(*powers)
    wanted = planner.demand(head, BALL, error=1e-2, smudging=4)
    found = planner.batch_candidates(head, BALL, wanted, flat_costs(), LAN)
    each = [candidate.cost.total / candidate.plan.records for candidate in found.candidates]
    assert each == sorted(each)
    assert all(candidate.plan == candidate.program.plan for candidate in found.candidates)
    assert {candidate.plan.smudging_bits >= 4 for candidate in found.candidates} == {True}
    offered = planner.batch_offers(found.candidates)
    assert offered[0].plan.records == min(candidate.plan.records for candidate in found.candidates)
    assert [o.plan.records for o in offered] == sorted({o.plan.records for o in offered})


def test_a_head_without_room_for_two_forms_is_refused() -> None:
    """The noise of switching does not shrink with the scale: no scale is large enough here."""
    found = planner.batch_candidates(
        network(2, 2, size=0.01), BALL, planner.demand(network(2, 2), BALL, error=1e-2), flat_costs(), LAN
    )
    assert not found.candidates
    assert any("no room for the second" in one.reason for one in found.rejected)


def test_reasons_are_kept() -> None:
    head = network(2)
    wanted = planner.demand(head, BALL, error=1e-9, smudging=40)
    found = planner.batch_candidates(head, BALL, wanted, flat_costs(), LAN)
    assert not found.candidates
    assert all(one.kind == "batch" and one.reason for one in found.rejected)
