"""Other software, one folder of `benchmarks/peers` each: environments of their own, and what their programs print.

A peer runs in one process and one thread (a sharing one: each of its parties does).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]

FOLDER = Path(__file__).resolve().parents[2] / "peers"
ONE_THREAD = {
    f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR", "RAYON", "VECLIB_MAXIMUM")
} | {"GOMAXPROCS": "1"}
DEADLINE_SECONDS = 300.0
FIELDS: dict[str, Any] = {
    **dict.fromkeys(("variant", "version", "parameters", "rests_on", "remark"), str),
    **dict.fromkeys(("server_ms", "client_ms"), dict),
    **dict.fromkeys(("queries", "bytes_up", "bytes_down", "key_bytes"), int),
    "security_bits": int | None,
    **dict.fromkeys(("max_logit_error", "argmax_agreement"), int | float),
    "model_hidden": bool,
}
"""What a measured row holds, and of which type; `note` (text) is there when the answers are wrong."""
SPREAD = ("median", "lowest", "highest")
"""What times hold, in milliseconds, beside all of them as `samples`."""


class Unavailable(Exception):
    """A peer gives no figures; the message says why, and what to do."""


@dataclass(frozen=True)
class Peer:
    """name: the folder. python: "3.10" for an environment of its own with that Python, None for the project's own.

    title: what readers call it. options: of its own command line. absent: why it is not measured at all.
    """

    name: str
    python: str | None = None
    title: str = ""
    options: tuple[str, ...] = ()
    absent: str = ""

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
        if self.absent:
            raise Unavailable(self.absent)
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


TENSEAL = Peer("tenseal_mm", title="TenSEAL")
CRYPTEN = Peer("crypten_stock", "3.11", "CrypTen", ("--seconds", "1.5"))
PEERS = (
    TENSEAL,
    Peer("openfhe", "3.10", "OpenFHE"),
    Peer("helayers", "3.11", "HElayers"),
    Peer("orion", "3.11", "Orion"),
    Peer("desilofhe", "3.11", "desilofhe"),
    Peer("concrete", "3.11", "Concrete"),
    Peer(
        "concrete_ml",
        title="Concrete ML",
        absent="not installed: its pinned torch brings gigabytes of CUDA libraries; Concrete, the compiler below it, "
        "is measured in its place",
    ),
)
"""Homomorphic encryption."""
SHARING = (CRYPTEN,)
"""Those on secret shares that the suite `mpc` asks in further ways."""
SECRET_SHARING = (CRYPTEN, Peer("spu", "3.11", "SPU"))


def install(peer: Peer) -> None:
    """Make the peer's environment anew from its pinned requirements; raises Unavailable when that fails."""
    if peer.python is None:
        if peer.absent:
            raise Unavailable(peer.absent)
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

    options: of the peer's own command line, in place of its usual ones.
    """
    try:
        chosen = options or peer.options
        command = [str(peer.interpreter()), str(peer.folder / "run.py"), str(workload), *chosen]
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
    if not bad and not all(map(_times, (row["server_ms"], row["client_ms"]))):
        bad = ["server_ms", "client_ms"]
    return {"reason": f"printed a row without a sound {', '.join(bad)}"} if bad else row


def _times(held: dict[str, Any]) -> bool:
    samples = held.get("samples")
    numbers = [held.get(name) for name in SPREAD] + (samples if isinstance(samples, list) else [])
    return bool(samples) and all(isinstance(number, int | float) for number in numbers)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1][:200]
