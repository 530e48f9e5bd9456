"""Stock CrypTen beside this project's heads: shares, batches, and where it is installed a run from end to end."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from secure_infer_benchmarks.peers import FIELDS, FOLDER, ONE_THREAD, SPREAD

RUN = FOLDER / "crypten_stock" / "run.py"


@pytest.fixture(scope="module")
def client() -> ModuleType:
    """The client's program; it needs neither CrypTen nor torch to be loaded."""
    spec = importlib.util.spec_from_file_location("crypten_stock_run", RUN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    """A ReLU head 16 -> 6 -> 4 and five rows."""
    rng = np.random.default_rng(0)
    W1, W2, rows = rng.normal(size=(6, 16)), rng.normal(size=(4, 6)), rng.normal(size=(5, 16)) / 4
    b1, b2 = rng.normal(size=6), rng.normal(size=4)
    logits = np.maximum(rows @ W1.T + b1, 0) @ W2.T + b2
    np.savez(tmp_path / "relu.npz", W1=W1, b1=b1, W2=W2, b2=b2, rows=rows, logits=logits, activation="relu")
    return tmp_path / "relu.npz"


def test_shares_add_up_to_the_values(client: ModuleType) -> None:
    values = np.random.default_rng(0).normal(size=(3, 7))
    first, second = client.shares(values)
    np.testing.assert_allclose((first + second) / 2**16, values, atol=2**-17)
    assert np.abs(first).max() > 2**50  # a mask of the whole ring


def test_batches_have_the_class_axis_first(client: ModuleType, workload: Path) -> None:
    loaded = client.Workload.load(str(workload))
    single = client.repeated(loaded, 7, 1, False)
    assert (single.rows.shape, single.logits.shape) == ((7, 16), (7, 4))
    batch = client.repeated(loaded, 2, 3, False)
    assert (batch.rows.shape, batch.logits.shape) == ((2, 3, 16), (2, 4, 3))
    np.testing.assert_array_equal(batch.logits[1, :, 2], loaded.logits[0])  # the sixth row is the first again
    label = client.repeated(loaded, 2, 3, True)
    np.testing.assert_array_equal(label.logits.argmax(axis=1), batch.logits.argmax(axis=1))
    np.testing.assert_array_equal(label.logits.sum(axis=1), 1)


@pytest.fixture
def wire(client: ModuleType) -> ModuleType:
    """The frames, which the client's program has made importable."""
    return importlib.import_module("peers.wire")


def test_frames_carry_their_kind_and_end_cleanly(wire: ModuleType) -> None:
    near, far = socket.socketpair()
    with far:
        with near:
            wire.send(near, wire.QUERY, b"share")
            wire.send(near, wire.MODEL, b"")
        assert wire.receive(far) == (b"Q", b"share")
        assert wire.receive(far) == (b"M", b"")
        with pytest.raises(EOFError, match="closed"):
            wire.receive(far)


def test_several_bodies_are_packed_as_one(wire: ModuleType) -> None:
    parts = [b"", b"share", bytes(300)]
    assert wire.unpacked(wire.packed(parts)) == parts
    assert wire.unpacked(wire.packed([])) == []


def run(workload: Path, *options: str, **environment: str) -> tuple[list[dict[str, Any]], str]:
    done = subprocess.run(
        [sys.executable, RUN, workload, *options],
        env=os.environ | ONE_THREAD | environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("crypten", "torch", "omegaconf"))), reason="CrypTen is not installed"
)
@pytest.mark.slow
def test_both_providers_answer_as_the_head_does(workload: Path) -> None:
    rows, told = run(workload, "--answers", "logits", "label", "--weights", "shared", "--queries", "3", "--batch", "2")
    assert [row["variant"] for row in rows] == [
        f"{provider}, weights shared, relu, {answers}" for provider in ("TTP", "TFP") for answers in ("logits", "label")
    ], told
    for row in rows:
        assert all(isinstance(row[name], kind) for name, kind in FIELDS.items())
        assert row["server_ms"].keys() == {*SPREAD, "samples"}
        assert row["argmax_agreement"] == 1
        assert row["max_logit_error"] < 1e-3
        assert row["bytes_up"] == 2 * 2 * 16 * 8
        assert row["bytes_down"] == 2 * 2 * 4 * 8
        assert "32-bit seeds" in row["privacy"]
        assert row["weights"] == "shared"


def test_parties_that_do_not_start_are_told_of(workload: Path, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no such library')\n")
    rows, told = run(workload, PYTHONPATH=str(tmp_path))
    assert rows == []
    assert told.count("the parties did not start: ImportError: no such library") == 2
