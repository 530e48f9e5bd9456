"""The comparison with other software: a peer end to end, reasons in place of figures, output that is not to be trusted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_infer.heads import Head, Linear, Polynomial, ReLU, Square
from secure_infer_benchmarks import peers
from secure_infer_benchmarks.peers import FIELDS, Peer, Workload
from shared import linear_head, unit_rows

SOUND: dict[str, Any] = {
    "variant": "one way",
    "version": "Software 1.0",
    "parameters": "N=8192",
    "security_bits": 128,
    "model_hidden": False,
    "queries": 2,
    "server_ms": {"median": 2.0, "lowest": 1.0, "highest": 3.0},
    "client_ms": {"median": 1.0, "lowest": 1.0, "highest": 1.0},
    "bytes_up": 10,
    "bytes_down": 20,
    "key_bytes": 30,
    "max_logit_error": 1e-6,
    "argmax_agreement": 1.0,
}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A peer with the given code, run in this environment."""
    monkeypatch.setattr(peers, "FOLDER", tmp_path)

    def write(code: str) -> Peer:
        (tmp_path / "written").mkdir()
        (tmp_path / "written" / "run.py").write_text(code)
        return Peer("written")

    return write


def test_tenseal_on_a_linear_head() -> None:
    case = Workload("tiny", linear_head(16, 4), unit_rows(2, 16))
    first = SOUND | {"peer": "ours"}
    found = peers.report(quick=True, ours=lambda _: [first], peers=[Peer("tenseal_mm")], cases=[case])
    entry = found["workloads"]["tiny"]
    assert entry["head"] == "16 -> 4"
    assert entry["rows"][0] == first
    (row,) = entry["rows"][1:]
    assert row["max_logit_error"] < 1e-4
    assert row["argmax_agreement"] == 1
    assert row["queries"] == 2
    assert not row["model_hidden"]
    assert "note" not in row
    text = peers.table(found)
    assert text.index("ours") < text.index("tenseal_mm")
    assert "model not hidden" in text
    assert json.loads(json.dumps(found)) == found


def test_tenseal_on_a_hidden_layer_tells_of_its_fault() -> None:
    rng = np.random.default_rng(0)
    layers = [Linear(rng.normal(size=(8, 16)), rng.normal(size=8)), Square(), Linear(rng.normal(size=(4, 8)))]
    case = Workload("tiny", Head(layers, labels=list("abcd"), input_bound=1.0), unit_rows(1, 16))
    plain, careful = peers.report(quick=True, peers=[Peer("tenseal_mm")], cases=[case])["workloads"]["tiny"]["rows"]
    assert careful["max_logit_error"] < 0.05 < 0.2 < plain["max_logit_error"]
    assert "plaintext bias" in plain["note"]
    assert "note" not in careful


def test_peers_get_a_quadratic_activation_as_a_square() -> None:
    rng = np.random.default_rng(0)
    quadratic = Polynomial(rng.uniform(0.1, 1.0, size=(5, 3)))
    layers = [Linear(rng.normal(size=(5, 7)), rng.normal(size=5)), quadratic, Linear(rng.normal(size=(3, 5)))]
    head = Head(layers, labels=["a", "b", "c"], input_bound=1.0)
    (W1, b1), (W2, b2) = peers.squared(head.layers)
    x = unit_rows(4, 7)
    np.testing.assert_allclose((x @ W1.T + b1) ** 2 @ W2.T + b2, head.evaluate(x), atol=1e-12)


@pytest.mark.parametrize("activation", [ReLU(), Polynomial([0.0, 1.0, 0.0]), Polynomial([1.0, 1.0, 1.0, 1.0])])
def test_other_heads_are_refused(activation: Any) -> None:
    with pytest.raises(ValueError, match="peers evaluate linear"):
        peers.squared([Linear(np.eye(2)), activation, Linear(np.eye(2))])


def test_the_workloads_are_what_peers_evaluate(tmp_path: Path) -> None:
    cases = peers.workloads(quick=True)
    assert [case.shape for case in cases] == ["384 -> 10", "384 -> 64 -> 10", "384 -> 256 -> 21"]
    for case in cases:
        case.save(tmp_path / "workload.npz")
        with np.load(tmp_path / "workload.npz") as file:
            y = file["rows"] @ file["W1"].T + file["b1"]
            if "W2" in file:
                y = y**2 @ file["W2"].T + file["b2"]
            np.testing.assert_allclose(y, file["logits"], atol=1e-9)
    assert any(isinstance(layer, Square) for layer in cases[1].head.layers)


def test_a_peer_that_is_not_installed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    peer = Peer("openfhe", python="3.10")
    (row,) = peers.run(peer, tmp_path / "none.npz")
    assert row["peer"] == "openfhe"
    assert "--install" in row["reason"]
    peer.environment.mkdir(parents=True)
    (peer.environment / "requirements.txt").write_text("openfhe==0.0\n")
    (row,) = peers.run(peer, tmp_path / "none.npz")
    assert row["reason"].startswith("installed with other versions")
    assert "no figures" in peers.table({"workloads": {"tiny": {"head": "2 -> 2", "rows": [row]}}})


def test_outside_the_source_tree_there_are_no_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    assert "clone" in peers.run(Peer("tenseal_mm"), tmp_path)[0]["reason"]


def test_installing_names_a_python_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(peers.Unavailable, match=r"python2\.0"):
        peers.install(Peer("openfhe", python="2.0"))


def test_an_interpreter_that_does_not_start_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in (("shim", "#!/bin/sh\nexit 127\n"), ("sound", "#!/bin/sh\nexit 0\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "python9.9").write_text(code)
        (tmp_path / name / "python9.9").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/shim:{tmp_path}/sound")
    assert peers._python("9.9") == tmp_path / "sound" / "python9.9"


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("", "printed nothing"),
        ("Segmentation fault", "not JSON"),
        ("[1, 2]", "printed list"),
        ("{}", "without a sound variant"),
        (json.dumps(SOUND | {"key_bytes": "many"}), "without a sound key_bytes"),
        (json.dumps(SOUND | {"server_ms": {"median": 1.0}}), "without a sound server_ms"),
    ],
)
def test_malformed_output_is_a_reason(written: Any, printed: str, reason: str) -> None:
    (row,) = peers.run(written(f"print({printed!r})"), Path("none.npz"))
    assert row.keys() == {"peer", "reason"}
    assert reason in row["reason"]


def test_rows_before_a_failure_are_kept(written: Any) -> None:
    row, failure = peers.run(written(f"print({json.dumps(SOUND)!r}); raise SystemExit('out of memory')"), Path("x"))
    assert row == SOUND | {"peer": "written"}
    assert row.keys() - {"peer"} == FIELDS.keys()
    assert failure["reason"] == "ended with status 1: out of memory"


def test_rows_before_the_deadline_are_kept(written: Any) -> None:
    code = f"import time; print({json.dumps(SOUND)!r}, flush=True); time.sleep(60)"
    row, failure = peers.run(written(code), Path("x"), seconds=2.0)
    assert row == SOUND | {"peer": "written"}
    assert failure["reason"] == "not done after 2 s"


def test_peers_get_one_thread(written: Any) -> None:
    code = f"import json, os; print(json.dumps({SOUND!r} | {{'variant': os.environ['OMP_NUM_THREADS']}}))"
    assert peers.run(written(code), Path("x"))[0]["variant"] == "1"


def test_the_interpreter_of_the_project_runs_what_it_depends_on() -> None:
    assert Peer("tenseal_mm").interpreter() == Path(sys.executable)
