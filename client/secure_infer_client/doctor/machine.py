"""Processor, memory, clock, unit costs."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import secure_infer
from secure_infer.ckks import calibration
from secure_infer.ckks.costs import Operation, Step
from secure_infer_client.doctor.finding import Finding, note, ok, problem, tried

_WANTED = {"avx2": "arithmetic on many residues at once", "avx512_vnni": "embedding with int8 weights"}
LEAST_MEMORY = 1 << 30
POINTS = ((4096, 1), (4096, 3))
"""Rings that are measured anew, to see whether the figures kept still hold."""

MAX_CHANGE = 1.5


def looks(*, calibrate: bool) -> Iterator[Finding]:
    """calibrate: measure the unit costs anew and keep them."""
    yield tried("processor", "", _processor)
    yield tried("memory", "", _memory)
    yield tried("crash dumps", "", _crash_dumps)
    yield _clock()
    yield tried("calibration", "run it again when the machine is idle", lambda: _calibration(refresh=calibrate))


def _processor() -> Finding:
    facts: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            facts[name.strip()] = value.strip()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    name = facts.get("model name") or platform.processor() or platform.machine()
    found = f"{name}, {cores} core{'s' * (cores != 1)}"
    flags = set(facts.get("flags", "").split())
    missing = [f"{flag} ({what})" for flag, what in _WANTED.items() if flags and flag not in flags]
    if missing:
        return note("processor", f"{found}; without {', '.join(missing)}", "it works, and takes longer")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > cores:
        return note("processor", f"{found}; load {load:.1f}", "busy: everything takes longer than it says")
    return ok("processor", f"{found}; {', '.join(flag for flag in _WANTED if flag in flags) or 'features unknown'}")


def _memory() -> Finding:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return note("memory", "this system does not say how much is free")
    facts = dict(line.split(":") for line in meminfo.read_text(encoding="utf-8").splitlines())
    free, swap = (1024 * int(facts[name].split()[0]) for name in ("MemAvailable", "SwapTotal"))
    found = f"{free / (1 << 30):.1f} GiB free"
    if free < LEAST_MEMORY:
        return note("memory", found, "the embedder takes a few hundred MiB; a batch may take as much again")
    if swap:
        return note(
            "memory", f"{found}, swap is on", "secret keys may be swapped out: encrypt the swap, or switch it off"
        )
    return ok("memory", found)


def _crash_dumps() -> Finding:
    try:
        import resource  # POSIX alone has it
    except ImportError:
        return note("crash dumps", "this system does not say")
    if resource.getrlimit(resource.RLIMIT_CORE)[0]:
        return note("crash dumps", "on: one would hold texts and secret keys", "ulimit -c 0, or LimitCORE=0 in a unit")
    return ok("crash dumps", "off")


def _clock() -> Finding:
    """Nothing here was made after now."""
    now = datetime.now(UTC)
    newest = datetime.fromtimestamp(Path(secure_infer.__file__).stat().st_mtime, UTC)
    found = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if (newest - now).total_seconds() > 86400:
        advice = "set it: certificates and tokens are judged by it"
        return problem("clock", f"{found}, before this package was installed ({newest:%Y-%m-%d})", advice)
    return ok("clock", found)


def _calibration(*, refresh: bool) -> Finding:
    path = calibration.cache_path()
    kept = path is not None and path.exists() and not refresh
    costs = calibration.unit_costs(refresh=refresh)
    if not kept:
        where = (
            "kept"
            if path is not None and path.exists()
            else "not kept: the machine was busy, or has no cache directory"
        )
        return ok("calibration", f"measured now, {where}")
    now = calibration.measure(POINTS, rounds=3).costs
    steps = [Step(op, *point) for op in (Operation.LOAD, Operation.MULTIPLY_PLAIN, Operation.BLIND) for point in POINTS]
    change = statistics.median(now.seconds(*step) / costs.seconds(*step) for step in steps)
    found = f"unit costs are {change:.2f} of those kept"
    if not 1 / MAX_CHANGE < change < MAX_CHANGE:
        return note(
            "calibration", found, "plans are chosen by them: `secure-infer doctor --calibrate` on an idle machine"
        )
    return ok("calibration", found)
