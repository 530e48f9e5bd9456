"""A report on an evaluation by two parties as lines for a reader, and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from secure_infer.ckks.link import Link
from secure_infer.mpc.disclosure import failures, who_learns
from secure_infer.mpc.program import SECURITY_BITS, Affine, Comparisons, Powers, Program, Step
from secure_infer_client.planning.shared_work import Taken

WIDTH = 120
_COMPARED = {Comparisons.TABLES: "tables", Comparisons.CRYPTEN: "CrypTen"}


@dataclass(frozen=True)
class SharedReport:
    """facts: of the model, as JSON can hold them. single, batch: what one record takes, and many. links: by name."""

    facts: dict[str, Any]
    program: Program
    links: Mapping[str, Link]
    single: Taken
    batch: Taken | None = None

    @property
    def asked(self) -> list[Taken]:
        return [self.single] if self.batch is None else [self.single, self.batch]


def lines(report: SharedReport) -> list[str]:
    """Steps, accuracy, what a request takes on every way, time by link, who learns what."""
    program = report.program
    found = [
        f"{program.weights} weights, {program.answers} answers, comparisons by {_COMPARED[program.comparisons]}, "
        f"{program.fraction} fraction bits (answers {program.answer_fraction}), 64-bit words, {SECURITY_BITS}-bit streams",
        *textwrap.wrap(f"error: every logit within {program.error_bound:.2g}; {failures(program)}", WIDTH),
        f"range: |logit| <= {program.answer_range:g}",
        "",
        f"  {'step':<44}{'rounds':>8}{'bytes each way':>16}",
    ]
    for step in program.steps:
        rounds, size = program.traffic(step, 1)
        found.append(f"  {_in_words(step):<44}{rounds:>8}{size:>16,}")
    found += ["", *_takes(report), "", "who learns what:"]
    for one in who_learns(program):
        start = f"  {one.who:<24}"
        found += textwrap.wrap(one.learns, WIDTH, initial_indent=start, subsequent_indent=" " * len(start))
    return found


def _takes(report: SharedReport) -> list[str]:
    found = [
        f"  {'records':<10}{'requests':>9}{'rounds':>8}{'bytes up':>14}{'bytes down':>12}{'between':>13}{'dealer':>14}"
        f"{'computing':>14}"
    ]
    for one in report.asked:
        computing = "not measured" if one.compute is None else f"{1e3 * one.compute:,.2f} ms"
        found.append(
            f"  {one.records:<10,}{one.requests:>9,}{one.rounds:>8,}{one.bytes_up:>14,}{one.bytes_down:>12,}"
            f"{one.link_bytes:>13,}{one.correlation_bytes:>14,}{computing:>14}"
        )
    found += [
        "bytes up, down: both halves; between: from each party to the other; dealer: made ahead, of",
        *textwrap.wrap(_correlations(report.asked[-1]), WIDTH, initial_indent="  ", subsequent_indent="  "),
        "",
        f"  {'estimated ms':<14}" + "".join(f"{name:>22}" for name in report.links),
    ]
    for one in report.asked:
        least = "at least " if one.compute is None else ""
        times = "".join(f"{f'{least}{1e3 * one.seconds(link):,.1f}':>22}" for link in report.links.values())
        found.append(f"  {one.records:<14,}{times}")
    computing = "without computing" if report.single.compute is None else "and computing"
    return [*found, f"rounds and bytes on such a link everywhere, {computing}; gRPC and TLS come on top"]


def _correlations(asked: Taken) -> str:
    if not asked.correlations:
        return "nothing: no correlations are taken"
    listed = ", ".join(f"{one.pieces:,} {one.kind} ({one.bytes:,} bytes)" for one in asked.correlations)
    return f"{listed}, and a seed for each party and request"


def _in_words(step: Step) -> str:
    cut = getattr(step, "truncate", 0)
    dropped = f", {cut} bits dropped" if cut else ""
    if isinstance(step, Affine):
        return f"{step.op} {step.inputs} -> {step.outputs}{dropped}"
    if isinstance(step, Powers):
        return f"{step.op} {', '.join(map(str, step.exponents))} of {step.inputs}{dropped}"
    return f"{step.op} of {step.inputs}"


def as_json(report: SharedReport) -> dict[str, Any]:
    """Everything the lines say."""
    program = report.program
    return {
        **report.facts,
        "scheme": "mpc",
        "program": program.digest,
        "weights": str(program.weights),
        "answers": str(program.answers),
        "comparisons": str(program.comparisons),
        "fraction_bits": program.fraction,
        "answer_fraction_bits": program.answer_fraction,
        "answer_range": program.answer_range,
        "error": program.error_bound,
        "failure_probability": program.failure_probability,
        "security_bits": SECURITY_BITS,
        "rounds": program.rounds,
        "steps": [_step(program, step) for step in program.steps],
        "single": _taken(report, report.single),
        "batch": None if report.batch is None else _taken(report, report.batch),
        "who_learns": [asdict(one) for one in who_learns(program)],
    }


def _step(program: Program, step: Step) -> dict[str, Any]:
    rounds, size = program.traffic(step, 1)
    return {**step.as_dict(), "step_rounds": rounds, "step_bytes": size}


def _taken(report: SharedReport, asked: Taken) -> dict[str, Any]:
    entry = asdict(asked)
    compute = entry.pop("compute")
    return {
        **entry,
        "compute_ms": None if compute is None else 1e3 * compute,
        "total_ms": {name: 1e3 * asked.seconds(link) for name, link in report.links.items()},
    }
