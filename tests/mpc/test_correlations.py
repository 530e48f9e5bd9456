"""Correlated randomness: what is dealt fits together, is used once, and foreign recipes are checked."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_infer.errors import CorrelationMisuse, MalformedRequest, ResourceExhausted
from secure_infer.mpc.comparison import Argmax, Relu, Signs
from secure_infer.mpc.correlations import (
    KINDS,
    PRIME,
    Bundle,
    Correlations,
    Need,
    Product,
    Recipe,
    Square,
    WeightProduct,
    deal,
    uniform_mod,
)
from secure_infer.mpc.ring import Matrix
from secure_infer.mpc.streams import uniform_words

NEEDS = (Square(5), Product(4), WeightProduct(2, 3, 7, 2), Relu(6), Signs(3), Argmax(2, 4))
FIXED = {2: Matrix(uniform_words(14).reshape(7, 2))}


@pytest.mark.parametrize("need", NEEDS, ids=lambda need: need.kind)
def test_shares_join_to_masks_and_what_follows_from_them(need: Need) -> None:
    recipe = Recipe("ab", 1, (need,))
    first, second = (Correlations(b, recipe, party).take(need) for party, b in enumerate(deal(recipe, FIXED)))
    joined = {f.name: f.joining.join(first[f.name], second[f.name]) for f in (*need.masks(), *need.derived())}
    expected = need.derive(joined, FIXED)
    assert expected.keys() == {f.name for f in need.derived()}
    for field in need.derived():
        assert (joined[field.name] == expected[field.name]).all()
        assert joined[field.name].shape == field.shape


def test_two_dealings_have_nothing_in_common() -> None:
    recipe = Recipe("ab", 1, NEEDS)
    one, other = deal(recipe, FIXED), deal(recipe, FIXED)
    assert len({b.id for b in (*one, *other)}) == 2
    assert len({b.seed for b in (*one, *other)}) == 4
    assert one[0].corrections != other[0].corrections
    assert not one[1].corrections


def test_each_need_is_handed_out_once_and_in_order() -> None:
    recipe = Recipe("ab", 1, (Square(5), Product(4)))
    correlations = Correlations(deal(recipe)[0], recipe, 0)
    with pytest.raises(CorrelationMisuse, match="order"):
        correlations.take(Product(4))
    correlations.take(Square(5))
    with pytest.raises(CorrelationMisuse, match="order"):
        correlations.take(Square(5))
    with pytest.raises(CorrelationMisuse, match="left over"):
        correlations.done()
    correlations.take(Product(4))
    correlations.done()
    with pytest.raises(CorrelationMisuse, match="order"):
        correlations.take(Product(4))


def test_a_bundle_serves_its_recipe_and_party_alone() -> None:
    recipe, other = Recipe("ab", 1, (Square(5),)), Recipe("ab", 1, (Square(6),))
    first, second = deal(recipe)
    for bundle, wrong, party in ((first, other, 0), (first, recipe, 1), (second, recipe, 0)):
        with pytest.raises(CorrelationMisuse, match="another recipe"):
            Correlations(bundle, wrong, party)
    cut = Bundle(first.id, first.recipe, first.seed, first.corrections[:-8])
    with pytest.raises(CorrelationMisuse):
        Correlations(cut, recipe, 0)


def test_recipes_survive_their_json() -> None:
    recipe = Recipe("ab", 16, NEEDS)
    assert Recipe.from_json(recipe.as_json()) == recipe
    assert Recipe.from_json(recipe.as_json()).digest == recipe.digest
    assert recipe.tensors() == {2: (7, 2)}


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"[]",
        b'{"program": "ab", "rows": 1}',
        b'{"program": "ab", "rows": 1, "needs": [{"kind": "os.system"}]}',
        b'{"program": "ab", "rows": 1, "needs": [{"kind": "square"}]}',
        b'{"program": "ab", "rows": 1, "needs": [{"kind": "square", "count": -1}]}',
        b'{"program": "ab", "rows": 1, "needs": [{"kind": "square", "count": true}]}',
        b'{"program": "ab", "rows": 1, "needs": [{"kind": "square", "count": 1e3}]}',
        b'{"program": "ab", "rows": 1, "needs": [{"kind": "square", "count": 5, "more": 1}]}',
        b'{"program": "ab", "rows": 0, "needs": []}',
        b'{"program": 7, "rows": 1, "needs": []}',
        b'{"program": "ab", "rows": 1e999, "needs": []}',
        b"[" * 100_000,
    ],
)
def test_foreign_recipes_are_refused(entry: bytes) -> None:
    with pytest.raises(MalformedRequest):
        Recipe.from_json(entry)


def test_recipes_too_large_to_deal_are_refused() -> None:
    needs = [{"kind": "square", "count": 1 << 23}] * 3
    with pytest.raises(ResourceExhausted, match="send fewer rows"):
        Recipe.from_json(json.dumps({"program": "ab", "rows": 1, "needs": needs}).encode())


@given(st.binary(max_size=200))
def test_random_bytes_are_no_recipe(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        Recipe.from_json(data)


def test_every_kind_has_a_test_here_or_beside_its_protocol() -> None:
    ours = {kind for kind in KINDS if not kind.startswith("crypten.")}
    assert {need.kind for need in NEEDS} == ours


def test_field_elements_are_uniform_and_below_the_prime() -> None:
    edge = np.array([PRIME, PRIME | (PRIME << 31), 2**64 - 1, 0, PRIME - 1], dtype=np.uint64)
    assert uniform_mod(edge).tolist() == [0, 0, 0, 0, PRIME - 1]
    found = uniform_mod(uniform_words(100_000))
    assert found.max() < PRIME
    counts = np.bincount((found * np.uint64(64) // np.uint64(PRIME)).astype(int), minlength=64)
    # 63 degrees of freedom: 131 is exceeded with probability 1e-6.
    assert ((counts - 100_000 / 64) ** 2 / (100_000 / 64)).sum() < 131
