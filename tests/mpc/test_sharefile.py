"""Models split for two parties: halves that fit, that say nothing alone, and that cannot be changed unseen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from secure_infer.errors import InvalidHead
from secure_infer.heads import Head, Linear, Polynomial, ReLU, artifact
from secure_infer.mpc import sharefile
from secure_infer.mpc.compiler import compile_head
from secure_infer.mpc.evaluate import Tensor
from secure_infer.mpc.program import Answers, Weights
from shared import hidden_head, linear_head


@pytest.fixture
def directories(tmp_path: Path) -> list[Path]:
    found = [tmp_path / "a", tmp_path / "b"]
    for directory in found:
        directory.mkdir()
    return found


def test_halves_join_to_the_model(directories: list[Path]) -> None:
    head = hidden_head((30, 16, 3), ReLU())
    program, paths = sharefile.share_model(head, directories, "m", answers=Answers.LABEL)
    first, second = (sharefile.load(path) for path in paths)
    assert (first.party, second.party) == (0, 1)
    assert first.spec == second.spec
    assert first.program == second.program == program
    assert first.spec.labels == head.labels
    clear = compile_head(head, weights=Weights.SHARED, answers=Answers.LABEL).tensors
    for one, other, tensor in zip(first.tensors, second.tensors, clear, strict=True):
        assert (one.weight + other.weight == tensor.weight).all()
        assert (one.bias + other.bias == tensor.bias).all()
    assert paths[0].stat().st_mode & 0o077 == 0


def test_public_layers_travel_in_the_clear(directories: list[Path]) -> None:
    head = hidden_head((30, 8, 4, 2), Polynomial([0.1, 0.8, 0.1]), public_layers=2)
    _, paths = sharefile.share_model(head, directories, "m")
    spec = sharefile.load(paths[0]).spec
    assert (spec.public_layers[0].arrays()["weight"] == head.layers[0].arrays()["weight"]).all()
    assert spec.encrypted.features == 8


def test_one_half_says_nothing_of_the_weights(directories: list[Path]) -> None:
    """Bytes of either file are uniform, the same for weights of zero and of one, and neither holds the head's digest."""
    for weight in (np.zeros((40, 50)), np.ones((40, 50))):
        head = Head([Linear(weight)], labels=[str(k) for k in range(40)], input_bound=1.0, input_norm=1.0)
        _, paths = sharefile.share_model(head, directories, "m")
        for path in paths:
            data = load_file(path)["0.weight"].tobytes()
            counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
            expected = len(data) / 256
            # 255 degrees of freedom: 373 is exceeded with probability 1e-6.
            assert ((counts - expected) ** 2 / expected).sum() < 373
            assert head.digest.encode() not in path.read_bytes()
            path.unlink()


def test_one_half_does_not_confirm_a_guess(directories: list[Path]) -> None:
    """Whoever guesses the weights knows the other half, but not the nonce under which it is committed to."""
    head = linear_head(20, 3)
    _, paths = sharefile.share_model(head, directories, "m")
    own = sharefile.load(paths[0]).tensors
    clear = compile_head(head, weights=Weights.SHARED).tensors
    guess = [Tensor(t.weight - o.weight, t.bias - o.bias) for t, o in zip(clear, own, strict=True)]
    (header, _), (other, _) = (artifact.read(path) for path in paths)
    assert sharefile._commitment(other["nonce"], guess) == header["commitments"][1]
    assert other["nonce"].encode() not in paths[0].read_bytes()
    for nonce in ("", header["nonce"]):
        assert sharefile._commitment(nonce, guess) not in header["commitments"]


def test_two_dealings_share_nothing_but_facts(directories: list[Path]) -> None:
    head = linear_head(20, 3)
    _, paths = sharefile.share_model(head, directories, "m")
    before = [sharefile.load(path) for path in paths]
    sharefile.share_model(head, directories, "m")
    after = [sharefile.load(path) for path in paths]
    assert before[0].spec.digest != after[0].spec.digest
    assert before[0].program == after[0].program
    assert not (before[0].tensors[0].weight == after[0].tensors[0].weight).any()


@pytest.mark.parametrize("where", [0.3, 0.6, 0.99])
def test_a_changed_byte_is_refused(directories: list[Path], where: float) -> None:
    _, paths = sharefile.share_model(linear_head(200, 8), directories, "m")
    data = bytearray(paths[1].read_bytes())
    data[int(where * len(data))] ^= 1
    paths[1].write_bytes(bytes(data))
    with pytest.raises(InvalidHead, match=r"m\.share"):
        sharefile.load(paths[1])


def test_foreign_files_are_refused(directories: list[Path]) -> None:
    path = directories[0] / "x.share"
    path.write_bytes(b"nothing")
    with pytest.raises(InvalidHead, match="not a share file"):
        sharefile.load(path)
    linear_head(4, 2).save(path)
    with pytest.raises(InvalidHead, match="share-model"):
        sharefile.load(path)
    with pytest.raises(InvalidHead, match="cannot be read"):
        sharefile.load(directories[0] / "missing.share")
    _, paths = sharefile.share_model(linear_head(4, 2), directories, "y")
    with pytest.raises(InvalidHead):
        Head.load(paths[0])
