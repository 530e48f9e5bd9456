"""The artifact file: round trip, tampering, corruption."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from secure_infer.errors import InvalidHead
from secure_infer.heads import Head, Linear, Polynomial, ReLU, Square


@pytest.fixture
def head() -> Head:
    rng = np.random.default_rng(0)
    return Head(
        [
            Linear(rng.normal(size=(6, 4))),
            Polynomial(rng.normal(size=(6, 3))),
            Linear(rng.normal(size=(3, 6))),
            ReLU(),
            Square(),
        ],
        labels=["a", "b", "ç"],
        input_bound=2.5,
        input_norm=3.0,
        public_layers=1,
        embedder="someone/1",
        temperature=[1.0, 2.0, 0.5],
        facts={"rows": 12, "note": "é"},
    )


def test_round_trip(head: Head, tmp_path: Path) -> None:
    head.save(tmp_path / "x.head")
    found = Head.load(tmp_path / "x.head")
    assert found == head
    assert found.layers == head.layers
    assert (found.facts, found.embedder, found.public_layers, found.labels) == (head.facts, "someone/1", 1, head.labels)
    assert found.temperature.tolist() == [1.0, 2.0, 0.5]
    x = np.random.default_rng(1).normal(size=(5, 4))
    assert np.array_equal(found.evaluate(x), head.evaluate(x))
    assert [p.name for p in tmp_path.iterdir()] == ["x.head"]


def test_saving_is_reproducible(head: Head, tmp_path: Path) -> None:
    head.save(tmp_path / "a.head")
    head.save(tmp_path / "b.head")
    assert (tmp_path / "a.head").read_bytes() == (tmp_path / "b.head").read_bytes()


def test_digest_covers_what_changes_an_answer() -> None:
    def make(**changes: object) -> Head:
        arguments: dict = {"labels": ["a", "b"], "input_bound": 1.0} | changes
        return Head([Linear(arguments.pop("weight", np.eye(2)))], **arguments)

    base = make().digest
    assert make(facts={"x": 1}).digest == base
    changes: list[dict] = [
        {"weight": np.eye(2) + 1e-12},
        {"labels": ["b", "a"]},
        {"input_bound": 2.0},
        {"input_norm": 1.0},
        {"temperature": 2.0},
        {"embedder": "e"},
    ]
    assert all(make(**change).digest != base for change in changes)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_changed_byte_loads_as_another_head(head: Head, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x.head"
    head.save(path)
    raw = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    try:
        assert Head.load(path).digest == head.digest  # a byte of the training facts, which the digest leaves out
    except InvalidHead:
        pass


@pytest.mark.parametrize("keep", [0, 1, 8, 100, -1])
def test_cut_files_are_refused(head: Head, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.head"
    head.save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InvalidHead, match=r"x\.head"):
        Head.load(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.head"
    with pytest.raises(InvalidHead, match="cannot be read"):
        Head.load(path)
    with pytest.raises(InvalidHead, match="cannot be read"):
        Head.load(tmp_path)
    save_file({"w": np.zeros(3)}, path)
    with pytest.raises(InvalidHead, match="header"):
        Head.load(path)
    save_file({"w": np.zeros(3)}, path, metadata={"secure_infer": json.dumps({"format": 99})})
    with pytest.raises(InvalidHead, match="format 99"):
        Head.load(path)
    save_file({"w": np.zeros(3)}, path, metadata={"secure_infer": json.dumps([1])})
    with pytest.raises(InvalidHead):
        Head.load(path)
