"""The report of a run, and its summary for people."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from secure_infer_benchmarks.stress.hostile_checks import Searched
from secure_infer_benchmarks.stress.hostile_inputs import PARSED, SURFACES
from secure_infer_benchmarks.stress.hostile_run import Found
from secure_infer_benchmarks.stress.hostile_send import LATE

SHOWN = 4  # outcomes of a row
SHOWN_FINDINGS = 100


@dataclass(frozen=True)
class Memory:
    """Resident bytes of a process and its children: before, when half of the inputs were sent, and after."""

    before: int
    halfway: int
    after: int


@dataclass(frozen=True)
class Report:
    """surfaces: by name, inputs by outcome. on_sockets: inputs that went through sockets. deaths: processes that ended.
    restarts: workers, or other children, that are not the same any more. servers_replaced: gRPC's, within their processes.
    honest: as `Tally`, by client. problems: of logs and records. findings: counted by what was wrong, and some of them."""

    when: str
    machine: str
    versions: Mapping[str, str]
    seed: int
    inputs: int
    on_sockets: int
    seconds: float
    surfaces: Mapping[str, Mapping[str, int]]
    deaths: Sequence[str]
    restarts: int
    wrong_answers: int
    honest: Mapping[str, Mapping[str, Any]]
    memory: Mapping[str, Memory]
    searched_bytes: int
    servers_replaced: int
    problems: Sequence[str]
    findings: int
    by_problem: Mapping[str, int]
    examples: Sequence[Mapping[str, Any]]
    sound: bool


def of(
    found: Found,
    seed: int,
    deaths: Sequence[str],
    restarts: int,
    memory: Mapping[str, Memory],
    left: Searched,
) -> Report:
    counted = {name: dict(found.outcomes[name].most_common()) for name in SURFACES if found.outcomes.get(name)}
    sockets = sum(sum(counts.values()) for name, counts in counted.items() if not name.startswith(PARSED))
    wrong = sum(tally.wrong for tally in found.honest.values())
    findings = len(found.findings) + found.more
    unanswered = [name for name, tally in found.honest.items() if not tally.records]
    everything = [*left.problems, *found.dead, *(f"no honest answer of {name}" for name in unanswered)]
    return Report(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        versions={name: version(name) for name in ("grpcio", "protobuf", "tenseal")},
        seed=seed,
        inputs=found.inputs,
        on_sockets=sockets,
        seconds=round(found.seconds, 1),
        surfaces=counted,
        deaths=list(deaths),
        restarts=restarts,
        wrong_answers=wrong,
        honest={
            name: vars(t) | {"largest": round(t.largest, 3), "refused": dict(t.refused)}
            for name, t in found.honest.items()
        },
        memory=memory,
        searched_bytes=left.bytes,
        servers_replaced=left.replaced,
        problems=everything,
        findings=findings,
        by_problem=dict(Counter(f"{f.surface}: {f.problem[:160]}" for f in found.findings).most_common()),
        examples=[
            {"index": f.index, "surface": f.surface, "problem": f.problem} for f in found.findings[:SHOWN_FINDINGS]
        ],
        sound=not (deaths or restarts or wrong or findings or everything),
    )


def text(report: Report) -> str:
    lines = [
        f"{report.inputs:,} hostile inputs, {report.on_sockets:,} of them through sockets, in {report.seconds:,.0f} s "
        f"({report.inputs / max(report.seconds, 0.1):,.0f} a second), seed {report.seed}",
        f"deaths {len(report.deaths)}, workers replaced {report.restarts}, wrong answers {report.wrong_answers}, "
        f"findings {report.findings}, problems afterwards {len(report.problems)}; "
        f"{report.searched_bytes / 1e6:,.1f} MB of logs and records searched",
        f"gRPC's servers that ended themselves and were replaced within their process: {report.servers_replaced}",
        f"inputs that were answered only when they were sent again, with twice the time: {_late(report.surfaces):,}",
        *("", "surface                            inputs  ended as"),
        *(f"{name:<30} {sum(counts.values()):>10,}  {_most(counts)}" for name, counts in report.surfaces.items()),
        *("", "honest client                     records    wrong  largest error / bound, and refused"),
        *(_honest(name, tally) for name, tally in report.honest.items()),
        *("", "memory, MiB                        before  halfway    after"),
        *(
            f"{name:<30} {m.before >> 20:>10,} {m.halfway >> 20:>8,} {m.after >> 20:>8,}"
            for name, m in report.memory.items()
        ),
        *(f"{count:>6} x {problem}" for problem, count in report.by_problem.items()),
        *(f"problem: {problem}" for problem in (*report.deaths, *report.problems)),
    ]
    return "\n".join(lines) + "\n"


def _late(surfaces: Mapping[str, Mapping[str, int]]) -> int:
    return sum(n for counts in surfaces.values() for outcome, n in counts.items() if outcome.endswith(LATE))


def _most(counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{outcome} {count:,}" for outcome, count in list(counts.items())[:SHOWN])
    return shown if len(counts) <= SHOWN else f"{shown}, {len(counts) - SHOWN} more"


def _honest(name: str, tally: Mapping[str, Any]) -> str:
    refused = ", ".join(f"{reason} {count}" for reason, count in tally["refused"].items())
    return f"{name:<30} {tally['records']:>10,} {tally['wrong']:>8}  {tally['largest']:.2f} {refused}"


def markdown(report: Report) -> str:
    """The summary beside the report."""
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    return (
        f"# Hostile inputs\n\n`secure-infer stress hostile --inputs {report.inputs} --seed {report.seed}` on {report.machine}; "
        f"{versions}; {report.when}. Every figure is from the report beside this file.\n\n```text\n{text(report)}```\n"
    )
