"""The packaged samples: complete, labelled as the heads label, and drawn the same way everywhere."""

from __future__ import annotations

import hashlib

import pytest

from secure_infer.distill.icd10 import CHAPTERS
from secure_infer.errors import InvalidInput
from secure_infer_client import samples


def test_the_whole_held_out_split_is_there() -> None:
    loaded = samples.load()
    assert len(loaded) == 5694
    assert {sample.label for sample in loaded} == set(CHAPTERS)
    assert all(sample.text.strip() and sample.code for sample in loaded)
    assert len({sample.text for sample in loaded}) == len(loaded)


def test_a_draw_is_fixed() -> None:
    drawn = samples.draw(1000)
    assert len(set(drawn)) == 1000
    # Published figures rest on these thousand texts: neither the file nor the draw may move unnoticed.
    found = hashlib.sha256("\n".join(sample.text for sample in drawn).encode()).hexdigest()
    assert found[:16] == "ca2cda994c05285b"


def test_a_smaller_draw_is_the_head_of_a_larger_one() -> None:
    assert samples.draw(300) == samples.draw(1000)[:300]
    assert samples.draw(300, seed=1) != samples.draw(300)


@pytest.mark.parametrize("n", [0, -1, 5695])
def test_a_draw_out_of_range_is_refused(n: int) -> None:
    with pytest.raises(InvalidInput, match="expected 1 to 5694"):
        samples.draw(n)
