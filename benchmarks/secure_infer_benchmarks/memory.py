"""Memory of processes, with their children's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def resident(pid: int) -> dict[int, int]:
    """Bytes of memory of a process and of its children, by pid; empty when it is gone."""
    found = {}
    for one in (pid, *children(pid)):
        try:
            status = Path(f"/proc/{one}/status").read_text()
        except OSError:
            continue
        found[one] = sum(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))
    return found


def children(pid: int) -> Iterator[int]:
    """Of a process, and theirs."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    wanted = [pid]
    while wanted:
        parent = wanted.pop()
        found = [child for child, of in parents.items() if of == parent]
        wanted += found
        yield from found
