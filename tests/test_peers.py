"""The comparison with other software: a peer end to end, reasons in place of figures, output that is not to be trusted."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from secure_infer.heads import Head, Linear, Polynomial, ReLU, Square
from secure_infer.mpc.program import Weights
from secure_infer_benchmarks import peers
from secure_infer_benchmarks.figures import figure
from secure_infer_benchmarks.peers import FIELDS, Peer, Workload, __main__, environments, ours, suite, table
from secure_infer_benchmarks.peers.ahead import compared
from shared import linear_head, unit_rows

SOUND: dict[str, Any] = {
    "variant": "one way",
    "version": "Software 1.0",
    "parameters": "N=8192",
    "rests_on": "an assumption",
    "remark": "",
    "security_bits": 128,
    "model_hidden": False,
    "queries": 2,
    "server_ms": {"median": 2.0, "lowest": 1.0, "highest": 3.0, "samples": [1.0, 3.0]},
    "client_ms": {"median": 1.0, "lowest": 1.0, "highest": 1.0, "samples": [1.0, 1.0]},
    "bytes_up": 10,
    "bytes_down": 20,
    "key_bytes": 30,
    "max_logit_error": 1e-6,
    "argmax_agreement": 1.0,
}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A peer with the given code, run in this environment."""
    monkeypatch.setattr(environments, "FOLDER", tmp_path)

    def write(code: str) -> Peer:
        (tmp_path / "written").mkdir()
        (tmp_path / "written" / "run.py").write_text(code)
        return Peer("written")

    return write


def own(server: float = 1.0, **counts: float) -> dict[str, Any]:
    """A row of ours, as `ours` makes them."""
    sizes = {"bytes_up": 10, "bytes_down": 5, "key_bytes": 10, "max_logit_error": 0.0, "agreement": 1.0}
    security = {"model_private": True, "bits": 128, "rests_on": "ring-LWE"}
    return {
        "id": "secure-infer/ckks",
        "who": "secure-infer",
        "variant": "CKKS",
        "version": "1",
        "parameters": "N=2048",
        "security": security,
        "note": "",
        "figures": {name: figure([server]) for name in ("server_ms", "client_ms")},
        "counts": sizes | counts,
    }


def compare(case: Workload, *chosen: Peer, sharing: tuple[Peer, ...] = ()) -> dict[str, Any]:
    """The suite with one invented row of ours and the given peers."""
    shared = own() | {"id": "secure-infer/mpc", "weights": "shared"}
    shared["figures"] = shared["figures"] | {"call_ms": figure([2.0])}
    first = (
        lambda cases, _: {one.name: [own()] for one in cases},
        lambda cases, _: {one.name: [shared] for one in cases},
    )
    return suite.compare([case], 1, peers=chosen, sharing=sharing, first=first)


def test_tenseal_on_a_linear_head() -> None:
    case = Workload("tiny", linear_head(16, 4), unit_rows(2, 16))
    found = compare(case, Peer("tenseal_mm", title="TenSEAL"))
    mine, row, shared = found["rows"]
    assert [one["id"] for one in found["rows"]] == [
        "tiny/secure-infer/ckks",
        "tiny/tenseal_mm/mm",
        "tiny/secure-infer/mpc",
    ]
    assert (mine["shape"], mine["ours"], shared["workload"]) == ("16 -> 4", True, "tiny, secret sharing")
    assert row["counts"]["max_logit_error"] < 1e-4
    assert row["counts"]["agreement"] == 1
    assert row["figures"]["server_ms"]["repeats"] == row["counts"]["queries"] >= 2
    assert not row["security"]["model_private"]
    assert row["security"]["bits"] == 128
    assert "WRONG" not in row["note"]
    (held,) = found["ahead"]
    assert held["ratios"]["server_ms"] == row["figures"]["server_ms"]["median"]
    assert held["ratios"]["bytes"] > 1000
    text = table.table(found)
    assert text.index("ours") < text.index("TenSEAL")
    assert "model not private" in text
    assert json.loads(json.dumps(found)) == found


def test_tenseal_on_a_hidden_layer_tells_of_its_fault() -> None:
    rng = np.random.default_rng(0)
    layers = [Linear(rng.normal(size=(8, 16)), rng.normal(size=8)), Square(), Linear(rng.normal(size=(4, 8)))]
    case = Workload("tiny", Head(layers, labels=list("abcd"), input_bound=1.0), unit_rows(1, 16))
    _, plain, careful, _ = compare(case, Peer("tenseal_mm"))["rows"]
    assert careful["counts"]["max_logit_error"] < 0.05 < 0.2 < plain["counts"]["max_logit_error"]
    assert plain["note"].startswith("WRONG ANSWERS: mm expects its input")
    assert careful["note"] == ""


def test_ratios_are_theirs_over_ours_and_say_where_ours_is_not_ahead() -> None:
    few = own(3.0, bytes_up=1) | {"id": "few", "variant": "few bytes"}
    theirs = own(4.0, bytes_up=4, key_bytes=1000) | {"id": "theirs", "who": "Them", "ours": False}
    rows = [{"workload": "w", "ours": True} | row for row in (own(), few, theirs)]
    (held,) = compared(rows)
    assert held["ratios"] == {"server_ms": 4.0, "bytes": 0.6, "key_bytes": 100.0}
    assert held["behind"] == ["bytes"]
    assert held["told"] == (
        "Ours is not ahead of Them (CKKS) in bytes up and down: 15 bytes beside 9 bytes. Ours with few bytes is: 6 bytes."
    )


def test_secret_sharing_is_held_against_the_row_that_holds_weights_alike(written: Any) -> None:
    printed = [SOUND | {"weights": weights, "security_bits": 0, "variant": weights} for weights in ("public", "shared")]
    peer = written("; ".join(f"print({json.dumps(row)!r})" for row in printed))
    found = compare(Workload("tiny", linear_head(16, 4), unit_rows(2, 16)), sharing=(peer,))
    public, shared = found["rows"][2:]
    assert shared["figures"]["call_ms"]["samples"] == [2.0, 4.0]
    assert (public["security"]["model_hidden_from"], shared["security"]["model_hidden_from"]) == (
        "nobody",
        "each party",
    )
    assert not shared["security"]["input_private"]
    (held,) = found["ahead"]
    assert (held["id"], held["to"]) == ("tiny/written/shared", "tiny/secure-infer/mpc")
    assert held["ratios"] == {"call_ms": 1.5, "bytes": 2.0, "key_bytes": 3.0}
    assert "beside none of ours" in table.table(found)


TINY = Workload("tiny", linear_head(16, 4), unit_rows(2, 16))


def test_our_encrypted_row() -> None:
    (row,) = ours.encrypted(TINY, 3)  # one plan is both the quickest and the one of fewest bytes
    assert row["figures"]["server_ms"]["repeats"] == 3
    assert row["security"]["model_private"]
    assert row["counts"]["agreement"] == 1
    assert row["counts"]["max_logit_error"] < 1e-2


def test_our_row_of_secret_sharing_has_the_parts_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    stats = [SimpleNamespace(encrypt_ms=1.0, decrypt_ms=0.5), SimpleNamespace(encrypt_ms=2.0, decrypt_ms=0.5)]
    counts = {"bytes_up": 1, "bytes_down": 2, "max_logit_error": None, "agreement": 1.0, "retries": 0}
    client = SimpleNamespace(plan=SimpleNamespace(fraction=14))
    asked = SimpleNamespace(call_ms=[4.0, 6.0], stats=stats, counts=lambda: counts, client=client)
    monkeypatch.setattr(ours, "security", lambda program: {"model_private": True})
    row = ours._shared_row(asked, Weights.SHARED)  # type: ignore[arg-type]
    assert {name: one["samples"] for name, one in row["figures"].items()} == {
        "server_ms": [2.5, 3.5],
        "client_ms": [1.5, 2.5],
        "call_ms": [4.0, 6.0],
    }
    assert row["counts"] == {"key_bytes": 0, "bytes_up": 1, "bytes_down": 2, "agreement": 1.0}
    assert row["weights"] == "shared"


@pytest.mark.slow
def test_our_rows_of_secret_sharing() -> None:
    rows = ours.shared([TINY], 2)["tiny"]
    assert [row["weights"] for row in rows] == ["public", "shared"]
    for row in rows:
        assert row["counts"]["agreement"] == 1
        assert row["counts"]["max_logit_error"] < 1e-2


def test_a_peer_that_is_never_measured_says_why(tmp_path: Path) -> None:
    peer = Peer("elsewhere", absent="no package for this machine")
    found = compare(Workload("tiny", linear_head(16, 4), unit_rows(2, 16)), peer)
    assert found["rows"][1]["reason"] == "no package for this machine"
    assert found["ahead"] == []
    assert "elsewhere     no figures: no package" in table.table(found)
    with pytest.raises(environments.Unavailable, match="no package"):
        environments.install(peer)


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


def test_outside_the_source_tree_there_are_no_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    assert "clone" in peers.run(Peer("tenseal_mm"), tmp_path)[0]["reason"]


def test_installing_names_a_python_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(environments.Unavailable, match=r"python2\.0"):
        environments.install(Peer("openfhe", python="2.0"))


def test_an_interpreter_that_does_not_start_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in (("shim", "#!/bin/sh\nexit 127\n"), ("sound", "#!/bin/sh\nexit 0\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "python9.9").write_text(code)
        (tmp_path / name / "python9.9").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/shim:{tmp_path}/sound")
    assert environments._python("9.9") == tmp_path / "sound" / "python9.9"


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("", "printed nothing"),
        ("Segmentation fault", "not JSON"),
        ("[1, 2]", "printed list"),
        ("{}", "without a sound variant"),
        (json.dumps(SOUND | {"key_bytes": "many"}), "without a sound key_bytes"),
        (json.dumps(SOUND | {"server_ms": {"median": 1.0}}), "without a sound server_ms"),
        (json.dumps(SOUND | {"client_ms": SOUND["client_ms"] | {"samples": []}}), "client_ms"),
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


def test_the_diagonal_method_is_the_matrix_product() -> None:
    """What the peers that work on slots encode: rotated sums over slots that repeat the input."""
    rng = np.random.default_rng(0)
    weight, bias, x, slots = rng.normal(size=(5, 12)), rng.normal(size=5), rng.normal(size=12), 32
    spec = importlib.util.spec_from_file_location("diagonals", environments.FOLDER / "diagonals.py")
    assert spec is not None
    assert spec.loader is not None
    diagonals = importlib.util.module_from_spec(spec)
    sys.modules["diagonals"] = diagonals  # a dataclass looks its module up
    try:
        spec.loader.exec_module(diagonals)
    finally:
        del sys.modules["diagonals"]
    steps = diagonals.Diagonals.of(weight, bias, slots)
    repeated = np.tile(np.pad(x, (0, 4)), 2)
    y = np.zeros(slots)
    for giant, vectors in enumerate(steps.vectors):
        inner = sum(u * np.roll(repeated, -baby) for baby, u in enumerate(vectors))
        y += np.roll(inner, -giant * steps.babies)
    for fold in steps.folds:
        y = y + np.roll(y, -fold)
    np.testing.assert_allclose((y + steps.bias)[:5], weight @ x + bias)
    assert steps.rotations() == {1, 2, 8}


def test_installing_by_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []
    monkeypatch.setattr(__main__, "install", lambda peer: asked.append(peer.name))
    monkeypatch.setattr(sys, "argv", ["peers", "--install", "spu", "openfhe"])
    assert __main__.main() == 0
    assert asked == ["spu", "openfhe"]
    assert capsys.readouterr().out == "spu: ready\nopenfhe: ready\n"
    monkeypatch.setattr(sys, "argv", ["peers", "--install", "nobody"])
    with pytest.raises(SystemExit):
        __main__.main()
    assert "no peer is called nobody" in capsys.readouterr().err
