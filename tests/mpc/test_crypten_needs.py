"""What is known of CrypTen's protocols without CrypTen and torch: their correlations, and the command that installs them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from secure_infer.mpc.correlations import Correlations, Need, Recipe, deal
from secure_infer.mpc.crypten import INSTALL
from secure_infer.mpc.crypten.needs import (
    And,
    Bits,
    labels_needs,
    link_bytes,
    positive_needs,
    relu_needs,
    rounds,
)

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}: raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Block())
"""


def fresh_interpreter(code: str, *blocked: str) -> str:
    """stdout of `code` in a process where `blocked` packages cannot be imported."""
    program = BLOCK.format(blocked=set(blocked)) + code
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def both(needs: tuple[Need, ...]) -> tuple[Correlations, Correlations]:
    recipe = Recipe("00", 1, needs)
    first, second = (Correlations(bundle, recipe, party) for party, bundle in enumerate(deal(recipe)))
    return first, second


def test_an_and_is_a_shared_conjunction() -> None:
    first, second = (side.take(And(50)) for side in both((And(50),)))
    a, b, ab = (first[name] ^ second[name] for name in ("a", "b", "ab"))
    np.testing.assert_array_equal(a & b, ab)
    assert len(np.unique(np.concatenate([first["a"], second["a"], first["ab"], second["ab"]]))) == 200


def test_bits_are_the_same_in_both_kinds_of_shares() -> None:
    first, second = (side.take(Bits(200)) for side in both((Bits(200),)))
    bits = (first["bit"] ^ second["bit"]) & np.uint64(1)
    np.testing.assert_array_equal(first["number"] + second["number"], bits)
    assert 0 < bits.sum() < 200


@pytest.mark.parametrize("needs", [relu_needs(7), positive_needs(3), labels_needs(2, 5), labels_needs(1, 200)])
def test_a_recipe_survives_the_way_to_the_dealer(needs: tuple[Need, ...]) -> None:
    recipe = Recipe("00", 1, needs)
    assert Recipe.from_json(recipe.as_json()) == recipe


def test_costs_follow_from_the_needs() -> None:
    assert (rounds(relu_needs(64)), link_bytes(relu_needs(64))) == (9, 64 * 232)
    assert rounds(labels_needs(1, 10)) == 22


def test_a_dealer_and_a_client_need_no_torch() -> None:
    code = (
        "from secure_infer.mpc.crypten.needs import labels_needs\n"
        "from secure_infer.mpc.correlations import Recipe, deal\n"
        "data = Recipe('00', 1, labels_needs(1, 3)).as_json()\n"
        "deal(Recipe.from_json(data))\n"
        "print('torch' in sys.modules, 'crypten' in sys.modules)"
    )
    assert fresh_interpreter(code, "torch", "crypten", "yaml", "omegaconf").split() == ["False", "False"]


@pytest.mark.parametrize("package", ["torch", "crypten", "omegaconf"])
def test_what_is_missing_is_named_with_the_command(package: str) -> None:
    code = (
        "from secure_infer.errors import MissingExtra\n"
        "from secure_infer.mpc.crypten import available\n"
        "try: available()\n"
        "except MissingExtra as error: print(error.message)"
    )
    message = fresh_interpreter(code, package)
    assert "is not installed" in message
    assert INSTALL in message
    assert INSTALL == "pip install 'secure-infer[mpc]' && pip install --no-deps crypten==0.4.1"
