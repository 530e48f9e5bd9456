"""What the gate adds to the cheapest query: the same server open, then with callers, budgets and an audit log.

Requests are encrypted beforehand, each sent under an id of its own, one after the other; servers take turns in short slices, so
that drift of the machine hits all alike, and blinds are made between the slices. Processor time is the server process's, all its
threads, as the kernel counts it: less noisy than the clock, and it counts what is done after the answer has left.
"""

from __future__ import annotations

import secrets
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

from tqdm import tqdm

from secure_infer.v1 import inference_pb2
from secure_infer_benchmarks import gate_alone, throughput
from secure_infer_benchmarks.figures import Suite, figure, ratio
from secure_infer_benchmarks.synthetic import unit_norm_head
from secure_infer_client.local_server import LocalServer

POLICY = """
[roles]
client = ["anonymous"]
[[allow]]
roles = ["client"]
methods = ["ModelService/*", "KeyService/*", "InferenceService/*"]
"""
CALLERS = '[callers]\npolicy = "policy.toml"\n'
BUDGETS = '[budgets]\npath = "budgets.sqlite"\ntotal = 1000000000\n'
AUDIT = '[audit]\ndirectory = "log"\nkey = "audit.key"\n'
GATES = {
    "open": "",
    "callers": CALLERS,
    "callers, budgets": CALLERS + BUDGETS,
    "callers, budgets, audit": CALLERS + BUDGETS + AUDIT,
}


@dataclass(frozen=True)
class Settings:
    """calls: of a slice. rounds: slices of each server. alone: slices of each gate by itself."""

    calls: int = 150
    rounds: int = 20
    alone: int = 60


QUICK = Settings(calls=60, rounds=4, alone=15)


@dataclass
class Seen:
    """Of one server, by slice: processor milliseconds a call, and the median call's milliseconds on the clock."""

    cpu: list[float] = field(default_factory=list)
    call: list[float] = field(default_factory=list)
    blinds_inline: int = 0


class Metered:
    """One server behind one kind of gate, and requests for it."""

    def __init__(self, stack: ExitStack, models: Path, gate: str, settings: Settings) -> None:
        options = ["--blinds-per-key", str(2 * settings.calls + 2), "--batches", "0"]
        if gate:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (folder / "policy.toml").write_text(POLICY)
            (folder / "config.toml").write_text(gate)
            options += ["--config", str(folder / "config.toml")]
        server = stack.enter_context(LocalServer(models, *options))
        self._pid = server.process.pid
        head = unit_norm_head(384, 10)
        self.replay = throughput.Replay(server.address, "head", head, throughput.Settings(requests=4, sessions=1))
        stack.callback(self.replay.close)
        self.error = self.replay.check()
        self.seen = Seen()

    def slice(self, calls: int) -> None:
        """So many calls, blinds ready."""
        self._settle()
        requests = [fresh(self.replay.requests[number % 4]) for number in range(calls)]
        times, inline = [], 0
        before = processor_seconds(self._pid)
        for request in requests:
            started = perf_counter()
            answer = self.replay.infer(request, timeout=60)
            times.append(1e3 * (perf_counter() - started))
            inline += inference_pb2.InferResponse.FromString(answer).answers.times.blinds_inline
        sleep(0.15)  # what was put off until after the answers is theirs, too
        self.seen.cpu.append(1e3 * (processor_seconds(self._pid) - before) / calls)
        self.seen.call.append(median(times))
        self.seen.blinds_inline += inline

    def _settle(self) -> None:
        """Until nothing is being made any more."""
        sleep(0.1)
        before = -1.0
        while (now := family_seconds(self._pid)) - before > 2e-3:
            before = now
            sleep(0.1)


def fresh(request: bytes) -> bytes:
    """The same request under an id of its own: it is evaluated, and charged, again."""
    found = inference_pb2.InferRequest.FromString(request)
    found.request_id = secrets.token_bytes(16)
    return found.SerializeToString()


def processor_seconds(pid: int) -> float:
    """That a process's threads have run."""
    return 1e-9 * sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def family_seconds(pid: int) -> float:
    """Its children's along with it."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return processor_seconds(pid) + sum(map(processor_seconds, children))


def measure(quick: bool) -> Suite:
    """Processor time and latency by gate, and their ratios to the open one's, slice by slice."""
    return run(QUICK if quick else Settings())


def run(settings: Settings) -> Suite:
    """The suite with those settings."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        unit_norm_head(384, 10).save(Path(directory) / "head.head")
        servers = {name: Metered(stack, Path(directory), gate, settings) for name, gate in GATES.items()}
        for number in tqdm(range(settings.rounds + 1), desc="gate", leave=False, disable=None):
            for server in servers.values():
                server.slice(settings.calls)
                if not number:
                    server.seen = Seen()  # the first slice warms up
        plan = servers["open"].replay.plan
        base = servers["open"].seen
        alone = gate_alone.measure(POLICY, plan.query_bytes, plan.answer_bytes, settings.alone)
        rows = [
            {
                "id": name,
                "scheme": "ckks",
                "plan": f"{plan.kind} {plan.parameters}",
                "figures": {
                    "call_ratio": ratio(server.seen.call, base.call),
                    "processor_ratio": ratio(server.seen.cpu, base.cpu),
                    "call_ms": figure(server.seen.call),
                    "processor_ms": figure(server.seen.cpu),
                },
                "counts": {
                    "gate_alone_us": alone[name]["us"],
                    "gate_alone_best_us": alone[name]["best_us"],
                    "blinds_inline": server.seen.blinds_inline,
                    "bytes_up": plan.query_bytes,
                    "max_logit_error": server.error,
                },
            }
            for name, server in servers.items()
        ]
    return {"calls": settings.calls * settings.rounds, "rows": rows}


def table(suite: Suite) -> str:
    """The suite as text."""
    lines = [
        f"{suite['rows'][0]['plan']}, {suite['calls']} calls of each server, one after the other, slices in turn",
        f"  {'gate':<26}{'call ratio':>22}{'processor ratio':>22}{'call ms':>10}{'processor ms':>13}"
        f"{'gate alone us':>15}{'at best':>9}",
    ]
    for row in suite["rows"]:
        found, counts = row["figures"], row["counts"]
        call, cpu = (
            f"{one['median']:.3f} ({one['low']:.3f}-{one['high']:.3f})"
            for one in (found["call_ratio"], found["processor_ratio"])
        )
        lines.append(
            f"  {row['id']:<26}{call:>22}{cpu:>22}{found['call_ms']['median']:>10.3f}{found['processor_ms']['median']:>13.3f}"
            f"{counts['gate_alone_us']:>15.1f}{counts['gate_alone_best_us']:>9.1f}"
        )
    return "\n".join(lines) + "\n"
