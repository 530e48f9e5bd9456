"""`secure-infer stress soak`: mixed load from several client processes, while servers are killed and restarted.

Single queries, queries of a hidden layer, batches, clients that upload and delete keys, and two parties; all through the SDK,
every answer checked against plaintext. For two thirds of the time (`--faulty`) something is killed or restarted every few
seconds; the rest is load alone, for the memory curve.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

from secure_infer.errors import SettingsError
from secure_infer_benchmarks.stress import soak_table
from secure_infer_benchmarks.stress.soak_chaos import PAUSES, Chaos
from secure_infer_benchmarks.stress.soak_clients import GRACE, TIMEOUT, Mission, Tally, work
from secure_infer_benchmarks.stress.soak_servers import Fleet
from secure_infer_benchmarks.stress.soak_watch import Watch

CLIENTS = ("single", "single", "hidden", "batch", "keys", "mpc")
FAULTY = 2 / 3


def run(arguments: list[str]) -> int:
    """Prints a table, or one JSON object; 1 where an answer was lost, wrong or crossed, or a server did not come back."""
    parser = argparse.ArgumentParser("secure-infer stress soak", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=30.0, help="of load; default 30")
    length.add_argument("--seconds", type=float, help="instead of minutes")
    parser.add_argument("--seed", type=int, default=6, help="of rows, faults and their moments")
    parser.add_argument(
        "--faulty", type=float, default=FAULTY, metavar="SHARE", help="of the time; default 2/3, 0: load alone"
    )
    parser.add_argument("--no-mpc", action="store_true", help="without dealer and parties")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the servers' logs there")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.json", help="also write the JSON there, and beside it FILE.md"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if not 0 <= options.faulty <= 1:
        raise SettingsError(f"--faulty: expected a share of the time from 0 to 1, got {options.faulty:g}")
    seconds = options.seconds or 60 * options.minutes
    kinds = [kind for kind in CLIENTS if kind != "mpc" or not options.no_mpc]
    report = soak(seconds, kinds, options.seed, faulty=options.faulty, logs=options.logs)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(soak_table.markdown(report))
    sys.stdout.write(json.dumps(report) + "\n" if options.json else soak_table.text(report))
    return 0 if report["sound"] else 1


def soak(
    seconds: float,
    kinds: Sequence[str],
    seed: int,
    *,
    faulty: float = FAULTY,
    pauses: tuple[float, float] = PAUSES,
    logs: Path | None = None,
) -> dict[str, Any]:
    """The report of one soak. kinds: of the client processes. faulty: the share of the time in which something fails."""
    with tempfile.TemporaryDirectory() as folder, Fleet(Path(folder), mpc="mpc" in kinds) as fleet:
        watch, chaos = Watch(fleet), Chaos(fleet, faulty * seconds, seed, pauses)
        context = multiprocessing.get_context("spawn")
        pipes, processes = [], []
        for number, kind in enumerate(kinds):
            mine, theirs = context.Pipe(duplex=False)
            mission = Mission(kind, fleet.targets, fleet.identity(kind), seconds, 1000 * seed + number)
            processes.append(context.Process(target=work, args=(theirs, mission), daemon=True))
            pipes.append(mine)
            processes[-1].start()
            theirs.close()
        for pipe in pipes:
            pipe.recv()  # it begins
        began = monotonic()
        watch.start()
        chaos.start()
        tallies, silent = _tallies(kinds, pipes, began + seconds + 5 * TIMEOUT + GRACE)
        took = monotonic() - began
        chaos.join()
        watch.join()
        for process in processes:
            process.kill()
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)
            for log in fleet.folder.glob("*.log"):
                shutil.copy(log, logs)
        faults = _faults_logged(fleet)
        audit = _audit(fleet)
        starts = {name: managed.starts for name, managed in fleet.managed.items()}
    return _report(seconds, seed, took, tallies, silent, chaos, watch) | {
        "starts": starts,
        "logged_faults": faults,
        "audit": audit,
    }


def _tallies(kinds: Sequence[str], pipes: Sequence[Any], until: float) -> tuple[list[Tally], list[str]]:
    """Those that came, and the kinds of processes that said nothing in time: theirs is a lost call each."""
    found, silent = [], []
    for kind, pipe in zip(kinds, pipes, strict=True):
        try:
            if not pipe.poll(max(0.0, until - monotonic())):
                raise EOFError
            found.append(pipe.recv())
        except EOFError:
            silent.append(kind)
    return found, silent


def _audit(fleet: Fleet) -> dict[str, Any]:
    """What `secure-infer audit verify` says of the server's log, through all restarts."""
    command = [sys.executable, "-m", "secure_infer.cli", "audit", "verify", str(fleet.audit), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    return {"status": done.returncode, "said": (done.stdout or done.stderr).strip()[:2000]}


def _faults_logged(fleet: Fleet) -> dict[str, int]:
    """Unexpected faults that servers wrote into their logs, by server."""
    return {name: managed.log.read_text().count("Traceback") for name, managed in fleet.managed.items()}


def _report(
    seconds: float,
    seed: int,
    took: float,
    tallies: Sequence[Tally],
    silent: Sequence[str],
    chaos: Chaos,
    watch: Watch,
) -> dict[str, Any]:
    memory = watch.report()
    lost = sum(tally.lost for tally in tallies) + len(silent)
    wrong = sum(tally.wrong for tally in tallies)
    faults = sum((tally.faults for tally in tallies), Counter[str]())
    return {
        "seconds": seconds,
        "took": took,
        "seed": seed,
        "sound": not (lost or wrong or faults or chaos.failed),
        "lost": lost,
        "wrong": wrong,
        "crossed": sum(tally.crossed for tally in tallies),
        "client_faults": dict(faults),
        "processes_that_said_nothing": list(silent),
        "faults": dict(chaos.done),
        "stuck": chaos.stuck,
        "did_not_come_back": chaos.failed,
        "clients": {
            kind: _client([t for t in tallies if t.kind == kind]) for kind in sorted({t.kind for t in tallies})
        },
        "flat": _all_flat(memory),
        "memory": memory,
    }


def _all_flat(memory: Sequence[dict[str, Any]]) -> bool | None:
    """None: no process lived for long enough to tell."""
    told = [process["flat"] for process in memory if process["flat"] is not None]
    return all(told) if told else None


def _client(tallies: Sequence[Tally]) -> dict[str, Any]:
    times = sorted(ms for tally in tallies for ms in tally.calls_ms)
    return {
        "processes": len(tallies),
        "asked": sum(tally.asked for tally in tallies),
        "answered": sum(tally.answered for tally in tallies),
        "records": sum(tally.records for tally in tallies),
        "errors": dict(sum((tally.errors for tally in tallies), Counter())),
        "said": {reason: message for tally in tallies for reason, message in tally.said.items()},
        "worst_error_of_bound": max(tally.worst for tally in tallies),
        "call_ms": {"median": median(times), "p99": times[int(0.99 * len(times))], "most": times[-1]}
        if times
        else None,
    }


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
