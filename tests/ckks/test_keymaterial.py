"""Uploaded key material: its bytes are exact, checked, and no more than a plan needs."""

from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest

from ckks.slots.pair import SlotPair, contract, network
from secure_infer.ckks import keymaterial, seal
from secure_infer.ckks.embedding import conjugation, element
from secure_infer.ckks.keymaterial import SwitchingKeys
from secure_infer.ckks.plan import Privacy
from secure_infer.ckks.residues import residue_bytes
from secure_infer.ckks.sealio import SEED_BYTES
from secure_infer.ckks.slots.planner import Demand, Layout, Planner
from secure_infer.errors import MalformedRequest

DEMAND = Demand(error=1e-2, smudging=8)


@pytest.fixture(scope="module")
def pair() -> SlotPair:
    planner = Planner(network((20, 8, 3), 3), contract(20))
    return SlotPair.of(planner, Layout(8192, 1, 2, 8, 2, 0), DEMAND)


@pytest.fixture(scope="module")
def open_pair() -> SlotPair:
    planner = Planner(network((20, 8, 3)), contract(20))
    return SlotPair.of(planner, Layout(8192, 1, 4, 4, 1, 1), replace(DEMAND, privacy=Privacy.INPUT_PRIVATE))


def test_uploads_are_as_long_as_the_plan_says(pair: SlotPair, open_pair: SlotPair) -> None:
    for one in (pair, open_pair):
        assert len(one.upload) == one.plan.key_bytes


def test_what_was_packed_is_parsed(pair: SlotPair, open_pair: SlotPair) -> None:
    for one in (pair, open_pair):
        material = keymaterial.parse(one.plan, one.upload)
        assert keymaterial.pack(one.plan, material) == one.upload
        assert set(material.automorphisms) == {galois for galois, _ in one.plan.automorphisms}
        assert (material.public is None) == (one.plan.privacy is Privacy.INPUT_PRIVATE)
        assert len(material.halves) == (material.public is not None) + one.plan.relinearisation + sum(
            level for _, level in one.plan.automorphisms
        )


def test_only_what_the_plan_uses_travels(pair: SlotPair) -> None:
    plan, degree = pair.plan, pair.plan.parameters.degree
    levels = dict(plan.automorphisms)
    # A baby step, giant steps of two, one fold at the level below, the conjugate; t² is relinearised one lower still.
    top, first = len(plan.parameters.data_primes), pair.program.layers[0]
    expected = {element(1, degree): top, element(2, degree): top, element(8, degree): first.level}
    assert levels == {**expected, conjugation(degree): first.level}
    assert plan.relinearisation == first.level_square < first.level <= top
    material = keymaterial.parse(plan, pair.upload)
    for galois, level in levels.items():
        assert len(material.automorphisms[galois]) == level
        for c0, _ in material.automorphisms[galois]:
            assert not c0[level:-1].any()
            assert c0[:level].any(axis=1).all()
            assert c0[-1].any()
    public, _ = material.public
    assert public[:2].any(axis=1).all()
    assert not public[2:].any()


def test_seeds_are_all_different(pair: SlotPair) -> None:
    seeds = [seed for _, seed in keymaterial.parse(pair.plan, pair.upload).halves]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda _: b""])
def test_other_lengths_are_refused(pair: SlotPair, change) -> None:
    data = change(pair.upload)
    with pytest.raises(MalformedRequest, match=f"expected {pair.plan.key_bytes} bytes .* got {len(data)}"):
        keymaterial.parse(pair.plan, data)


def test_residues_beyond_their_prime_are_refused(pair: SlotPair) -> None:
    plan = pair.plan
    sizes = [residue_bytes(plan.parameters.degree, plan.public_primes) + SEED_BYTES]
    sizes += [plan.switching_bytes(level) for _, level in plan.automorphisms] + [
        plan.switching_bytes(plan.relinearisation)
    ]
    starts = [0, *accumulate(sizes)]
    assert starts[-1] == len(pair.upload)
    for start in starts[:-1]:
        data = bytearray(pair.upload)
        data[start : start + 16] = b"\xff" * 16
        with pytest.raises(MalformedRequest, match="public key"):
            keymaterial.parse(plan, bytes(data))


def full_keys(pair: SlotPair) -> SwitchingKeys:
    """The same client's keys, every residue and every digit of them."""
    ring, material = seal.ring(pair.plan.parameters), pair.key._material(pair.plan)
    return SwitchingKeys(ring.galois_keys(material.automorphisms), ring.relin_keys(material.relinearisation))


def test_keys_of_their_level_evaluate_like_full_ones() -> None:
    planner = Planner(network((20, 8, 3), 3), contract(20))
    plan = planner.program(Layout(8192, 1, 2, 8, 2, 0), replace(DEMAND, privacy=Privacy.INPUT_PRIVATE))
    pair = SlotPair(planner.network, plan)
    # The generator draws new keys each time: keep what it drew.
    material = pair.key._material(pair.plan)
    reduced = keymaterial.parse(pair.plan, keymaterial.pack(pair.plan, material))
    pair.key._material = lambda _: material
    x = np.full(20, 0.2)
    pair.keys = keymaterial.load(pair.plan, reduced)
    query = pair.query(x)
    answers = pair.evaluator.evaluate(pair.loaded(query), None, pair.keys)
    assert answers == pair.evaluator.evaluate(pair.loaded(query), None, full_keys(pair))
