"""The same heads evaluated by other homomorphic encryption software: one process and one thread a peer.

Each peer lives in `benchmarks/peers/NAME` of the source tree, in an environment of its own; see the README there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from secure_infer import models
from secure_infer.heads import Head, Layer, Linear, Polynomial, ReLU, Square
from secure_infer_benchmarks.linear import inputs, unit_norm_head

Row = dict[str, Any]
Floats = NDArray[np.float64]

FOLDER = Path(__file__).resolve().parents[1] / "peers"
ONE_THREAD = {
    f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR", "RAYON", "VECLIB_MAXIMUM")
}
DEADLINE_SECONDS = 300.0
FIELDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("variant", "version", "parameters"), str),
    **dict.fromkeys(("server_ms", "client_ms"), dict),
    **dict.fromkeys(("queries", "bytes_up", "bytes_down", "key_bytes", "security_bits"), int),
    **dict.fromkeys(("max_logit_error", "argmax_agreement"), (int, float)),
    "model_hidden": bool,
}
"""What a measured row holds, and of which type; `note` (text) is there when the answers are wrong."""
SPREAD = ("median", "lowest", "highest")
"""What times hold, in milliseconds."""


class Unavailable(Exception):
    """A peer gives no figures; the message says why, and what to do."""


@dataclass(frozen=True)
class Peer:
    """name: the folder. python: "3.10" for an environment of its own with that Python, None for the project's own."""

    name: str
    python: str | None = None

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def environment(self) -> Path:
        """Where `install` puts the peer's environment."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "secure-infer" / "peers" / self.name

    @property
    def pip_arguments(self) -> list[list[str]]:
        """What pip is asked for, call by call. A second file names packages whose own requirements cannot be met."""
        calls = [["--requirement", str(self.folder / "requirements.txt")]]
        alone = self.folder / "requirements-no-deps.txt"
        return [*calls, ["--no-deps", "--requirement", str(alone)]] if alone.is_file() else calls

    def requirements(self) -> bytes:
        """The contents of all requirement files, which the environment keeps to tell when it is out of date."""
        return b"".join(Path(arguments[-1]).read_bytes() for arguments in self.pip_arguments)

    def interpreter(self) -> Path:
        """The Python that runs the peer; raises Unavailable when there is none, or it was made for other versions."""
        if not (self.folder / "run.py").is_file():
            raise Unavailable("peers are in the source tree, not in the installed package; run this from a clone")
        if self.python is None:
            return Path(sys.executable)
        stamp = self.environment / "requirements.txt"
        if not stamp.is_file():
            raise Unavailable("not installed; python -m secure_infer_benchmarks.peers --install")
        if stamp.read_bytes() != self.requirements():
            raise Unavailable("installed with other versions; python -m secure_infer_benchmarks.peers --install")
        return self.environment / "bin" / "python"


PEERS = (Peer("tenseal_mm"), Peer("openfhe", python="3.10"))
SHARING = (Peer("crypten_stock", python="3.11"),)
"""Peers that compute on secret shares, for the suite `mpc`."""


@dataclass(frozen=True)
class Workload:
    """A head and the rows (B, d) that it is asked about."""

    name: str
    head: Head
    rows: Floats

    @property
    def shape(self) -> str:
        """For example 384 -> 64 -> 10."""
        linear = [layer for layer in self.head.layers if isinstance(layer, Linear)]
        return " -> ".join(map(str, (self.head.features, *(len(layer.bias) for layer in linear))))

    def save(self, path: Path) -> None:
        """The file that peers read."""
        pairs, activation = dense(self.head.layers)
        arrays: dict[str, Any] = {"activation": activation}
        for i, (weight, bias) in enumerate(pairs, start=1):
            arrays |= {f"W{i}": weight, f"b{i}": bias}
        np.savez(path, rows=self.rows, logits=self.head.evaluate(self.rows), **arrays)


def dense(layers: Sequence[Layer]) -> tuple[list[tuple[Floats, Floats]], str]:
    """(weight, bias) of each linear layer, and what is between them: "relu", or "square" as `squared` makes it."""
    match layers:
        case [Linear() as first, ReLU(), Linear() as last]:
            return [(first.weight, first.bias), (last.weight, last.bias)], "relu"
    return squared(layers), "square"


def squared(layers: Sequence[Layer]) -> list[tuple[Floats, Floats]]:
    """(weight, bias) of one or two linear layers that answer alike with a plain square between them.

    a z² + b z + c = a (z + b/2a)² + c - b²/4a is exact and saves every peer a level; a must not be zero.
    """
    match layers:
        case [Linear() as only]:
            return [(only.weight, only.bias)]
        case [Linear() as first, Square(), Linear() as last]:
            return [(first.weight, first.bias), (last.weight, last.bias)]
        case [Linear() as first, Polynomial(degree=2) as activation, Linear() as last]:
            c, b, a = np.broadcast_to(activation.coefficients, (len(first.bias), 3)).T
            if a.all():
                bias = last.bias + last.weight @ (c - b * b / (4 * a))
                return [(first.weight, first.bias + b / (2 * a)), (last.weight * a, bias)]
    kinds = ", ".join(layer.kind for layer in layers)
    raise ValueError(f"peers evaluate linear, or linear, square or quadratic, linear; got {kinds}")


def square_head(features: int, hidden: int, outputs: int) -> Head:
    """A synthetic head with one squared hidden layer, as `hidden_head` makes it."""
    return hidden_head(features, hidden, outputs, Square())


def hidden_head(features: int, hidden: int, outputs: int, activation: Layer) -> Head:
    """A synthetic head with one hidden layer, weights N(0, 1)/sqrt(fan-in), biases N(0, 0.1²)."""
    rng = np.random.default_rng(0)
    first = Linear(rng.normal(size=(hidden, features)) / np.sqrt(features), rng.normal(size=hidden) / 10)
    last = Linear(rng.normal(size=(outputs, hidden)) / np.sqrt(hidden), rng.normal(size=outputs) / 10)
    labels = [f"class {k}" for k in range(outputs)]
    return Head([first, activation, last], labels=labels, input_bound=1.0, input_norm=1.0)


def workloads(quick: bool) -> list[Workload]:
    """The heads that are compared; few rows, because the slowest peer takes seconds for each."""
    heads = {
        "unit-norm-384-10": (unit_norm_head(384, 10), 2 if quick else 7),
        "square-384-64-10": (square_head(384, 64, 10), 1 if quick else 3),
        "icd10-chapter": (Head.load(models.path() / "icd10-chapter.head"), 1 if quick else 2),
    }
    return [Workload(name, head, inputs(head.features, count)) for name, (head, count) in heads.items()]


def install(peer: Peer) -> None:
    """Make the peer's environment anew from its pinned requirements; raises Unavailable when that fails."""
    if peer.python is None:
        return
    python, environment = _python(peer.python), peer.environment
    pip = [environment / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    for command in ([python, "-m", "venv", "--clear", environment], *([*pip, *more] for more in peer.pip_arguments)):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=900)
        if done.returncode:
            raise Unavailable(f"cannot be installed: {_last_line(done.stderr)}")
    (environment / "requirements.txt").write_bytes(peer.requirements())


def _python(version: str) -> Path:
    """An interpreter of that version on the path or from pyenv; one that starts, which a pyenv shim may not."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    folders = [*map(Path, os.get_exec_path()), *sorted(pyenv.glob(f"{version}.*/bin"))]
    for candidate in (folder / f"python{version}" for folder in folders):
        if candidate.is_file() and not subprocess.run([candidate, "-V"], capture_output=True, timeout=60).returncode:
            return candidate
    raise Unavailable(f"its packages are built for Python {version}, and there is no python{version} here")


def run(peer: Peer, workload: Path, seconds: float = DEADLINE_SECONDS, options: Sequence[str] = ()) -> list[Row]:
    """The peer's rows for a workload file; what it gave no figures for is a row with a `reason`.

    options: of the peer's own command line.
    """
    try:
        command = [str(peer.interpreter()), str(peer.folder / "run.py"), str(workload), *options]
    except Unavailable as error:
        return [{"peer": peer.name, "reason": str(error)}]
    reason = None
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env=os.environ | ONE_THREAD, cwd=peer.folder
        )
        output = done.stdout
        if done.returncode:
            reason = f"ended with status {done.returncode}: {_last_line(done.stderr)}"
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        reason = f"not done after {seconds:g} s"
    rows = [{"peer": peer.name} | _parsed(line) for line in output.splitlines() if line.strip()]
    if reason or not rows:
        rows.append({"peer": peer.name, "reason": reason or "printed nothing"})
    return rows


def _parsed(line: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError:
        return {"reason": "printed a line that is not JSON"}
    if not isinstance(row, dict):
        return {"reason": f"printed {type(row).__name__}, expected a JSON object"}
    bad = [name for name, kind in FIELDS.items() if not isinstance(row.get(name), kind)]
    if not bad and not all(isinstance(row["server_ms"].get(name), int | float) for name in SPREAD):
        bad = ["server_ms"]
    return {"reason": f"printed a row without a sound {', '.join(bad)}"} if bad else row


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1][:200]


def report(
    quick: bool,
    ours: Callable[[Workload], list[Row]] | None = None,
    *,
    peers: Iterable[Peer] = PEERS,
    cases: Sequence[Workload] | None = None,
    seconds: float = DEADLINE_SECONDS,
) -> dict[str, Any]:
    """Rows by workload: those of `ours` first, then each peer's in turn.

    ours: this project's rows for a workload, with the fields of FIELDS and `peer`; it runs before the peers do.
    seconds: the deadline of one peer on one workload.
    """
    cases, peers = workloads(quick) if cases is None else cases, tuple(peers)
    found: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(total=len(cases) * len(peers), desc="peers", leave=False, disable=None) as progress,
    ):
        for case in cases:
            file = Path(folder) / f"{case.name}.npz"
            case.save(file)
            rows = [] if ours is None else [*ours(case)]
            for peer in peers:
                progress.set_postfix_str(f"{peer.name}, {case.name}")
                rows += run(peer, file, seconds)
                progress.update()
            found[case.name] = {"head": case.shape, "rows": rows}
    return {"threads": 1, "workloads": found}


def table(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = []
    for name, found in report["workloads"].items():
        lines.append(f"{name} ({found['head']}), one thread")
        for row in found["rows"]:
            if "reason" in row:
                lines.append(f"  {row['peer']:<12} no figures: {row['reason']}")
                continue
            ms = row["server_ms"]
            hidden = "model hidden" if row["model_hidden"] else "model not hidden"
            lines += [
                f"  {row['peer']:<12} server {ms['median']:,.1f} ms ({row['queries']} queries, "
                f"{ms['lowest']:,.1f} to {ms['highest']:,.1f}), logit error {row['max_logit_error']:.1e}, "
                f"{row['argmax_agreement']:.0%} same class",
                f"  {'':<12} {row['variant']}; {row['version']}, {row['parameters']}, {row['security_bits']}-bit, {hidden}",
                f"  {'':<12} {row['bytes_up']:,} bytes up, {row['bytes_down']:,} down, {row['key_bytes']:,} of keys once",
            ]
            if "note" in row:
                lines.append(f"  {'':<12} WRONG ANSWERS: {row['note']}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Install the peers' environments, which the benchmark itself never does."""
    parser = argparse.ArgumentParser("python -m secure_infer_benchmarks.peers", description=main.__doc__)
    parser.add_argument("--install", action="store_true", required=True, help="make each peer's environment anew")
    parser.parse_args()
    failed = 0
    for peer in (*PEERS, *SHARING):
        try:
            install(peer)
            sys.stdout.write(f"{peer.name}: ready\n")
        except (Unavailable, subprocess.TimeoutExpired) as error:
            failed = 1
            sys.stdout.write(f"{peer.name}: {error}\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
