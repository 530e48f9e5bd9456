"""The deletion test, in small: explanations find words that matter more than random ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from secure_infer import models
from secure_infer.heads import Head, ModelSpec
from secure_infer_benchmarks import explanations
from secure_infer_benchmarks.explanations import Deletion, sign_test, texts
from secure_infer_client.explanation import exact, occlusion, units
from secure_infer_client.text.embed import MiniLM


def test_the_sign_test() -> None:
    assert sign_test(3, 4) == 5 / 16
    assert sign_test(0, 9) == 1.0
    assert sign_test(20, 20) == 2.0**-20


def test_explanations_beat_chance_and_reversed_ones_do_not() -> None:
    head, minilm = Head.load(models.path() / "icd10-chapter-linear.head"), MiniLM(threads=1)
    spec, deletion, better = ModelSpec.of("m", head), Deletion(head, minilm, random_orders=3), [0, 0, 0]
    chosen = texts(14)
    for text in chosen:
        words = units.words(text)
        logits = head.evaluate(minilm(occlusion.variants(words)).astype(np.float64))
        found = occlusion.explanation(spec, words, logits, 1e-3, None)
        summed = exact.explanation(spec, head, minilm, words, None)
        _, by_chance = deletion.compared(found)
        for place, order in enumerate((found.ranked(), summed.ranked(), found.ranked()[::-1])):
            better[place] += deletion.fallen(found, [order])[0] > by_chance
    assert sign_test(better[0], len(chosen)) < 0.01
    assert sign_test(better[1], len(chosen)) < 0.01
    assert better[2] < len(chosen) / 4


@pytest.mark.slow
def test_the_suite_over_a_real_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert explanations.run(["--texts", "40", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {(row["method"], row["units"]) for row in rows} >= {("occlusion", "words"), ("exact", "phrases")}
    assert all(row["p"] < 0.01 for row in rows if row["units"] == "words")
