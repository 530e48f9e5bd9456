"""`secure-infer bench`: measures encrypted inference on this machine against the same server's plaintext call."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from secure_infer import models
from secure_infer.heads import Head
from secure_infer_benchmarks import (
    batches,
    deidentification,
    engine,
    extraction,
    gate,
    sharing,
    sharing_table,
    start,
    throughput,
)
from secure_infer_benchmarks import peers as others
from secure_infer_benchmarks.linear import Settings, measure, unit_norm_head


def run(arguments: list[str]) -> int:
    """Run the benchmark; prints a table, or one JSON object."""
    parser = argparse.ArgumentParser("secure-infer bench", description=__doc__)
    parser.add_argument(
        "--suite",
        choices=SUITES,
        default="linear",
        help="linear: queries through a server, beside plaintext; engine: every plan by itself; batch: many records; "
        "peers: other software on the same heads; mpc: two parties, beside stock CrypTen; "
        "start: new processes, with and without a key ring; throughput: one worker and two; gate: callers, budgets and audit "
        "beside an open server; extraction: stolen models, by policy; deidentify: what is removed",
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the repeats")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write the JSON there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    report, text = SUITES[options.suite](options.quick)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    sys.stdout.write(json.dumps(report) + "\n" if options.json else text)
    return 0


def linear(quick: bool) -> tuple[dict[str, Any], str]:
    """Encrypted queries against the plaintext call: the report and its table."""
    settings = Settings(repeats=45, seconds=2.0) if quick else Settings()
    heads = {
        "icd10-chapter-linear": Head.load(models.path() / "icd10-chapter-linear.head"),
        "unit-norm-384-10": unit_norm_head(384, 10),
    }
    report = {"machine": machine(), "heads": {name: measure(head, name, settings) for name, head in heads.items()}}
    return report, table(report)


def deidentify(quick: bool) -> tuple[dict[str, Any], str]:
    """De-identification on labelled synthetic text: the report and its table; always the published draw."""
    report = deidentification.report()
    return report, deidentification.table(report)


def encrypted(quick: bool) -> tuple[dict[str, Any], str]:
    """The engine by itself: single queries of every plan, what smudging costs, how time grows."""
    report = engine.report(quick)
    return {"machine": machine()} | report, engine.table(report)


def batch(quick: bool) -> tuple[dict[str, Any], str]:
    """Many records at once, end to end: the report and its table."""
    report = {"machine": machine()} | batches.report(quick)
    return report, batches.table(report)


def peers(quick: bool) -> tuple[dict[str, Any], str]:
    """The same heads evaluated by other software, ours first: the report and its table."""
    report = {"machine": machine()} | others.report(quick, engine.beside_peers)
    return report, others.table(report)


def mpc(quick: bool) -> tuple[dict[str, Any], str]:
    """Secret sharing between two parties, end to end: the report and its table."""
    report = {"machine": machine()} | sharing.report(quick)
    return report, sharing_table.table(report)


def first_calls(quick: bool) -> tuple[dict[str, Any], str]:
    """What a new process takes to its first answer, by key ring: the report and its table."""
    report = {"machine": machine()} | start.report(quick)
    return report, start.table(report)


def workers(quick: bool) -> tuple[dict[str, Any], str]:
    """What a server answers a second, by number of workers: the report and its table."""
    settings = throughput.Settings(seconds=1.0, rounds=2) if quick else throughput.Settings()
    report = {"machine": machine()} | throughput.measure(settings)
    return report, throughput.table(report)


def guarded(quick: bool) -> tuple[dict[str, Any], str]:
    """What the gate adds to the cheapest query: the report and its table."""
    report = {"machine": machine()} | gate.measure(gate.QUICK if quick else gate.Settings())
    return report, gate.table(report)


def stolen(quick: bool) -> tuple[dict[str, Any], str]:
    """How well a stolen model agrees with the real one, by queries and policy: the report and its table."""
    report = {"machine": machine()} | extraction.run(extraction.QUICK if quick else extraction.Options())
    return report, extraction.table(report)


SUITES = {
    "linear": linear,
    "engine": encrypted,
    "batch": batch,
    "peers": peers,
    "mpc": mpc,
    "start": first_calls,
    "throughput": workers,
    "gate": guarded,
    "extraction": stolen,
    "deidentify": deidentify,
}


def machine() -> dict[str, Any]:
    """What the figures were read on."""
    packages = ("secure-infer", "tenseal", "numpy", "grpcio", "protobuf")
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "load_average_before": os.getloadavg()[0],
    }


def table(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = []
    for name, r in report["heads"].items():
        warm, cold, sustained = r["warm_pool"], r["cold_pool"], r["sustained"]
        single, full = sustained["single"], sustained["full_calls"]
        encrypted, plain = r["predict_ms"]["median"], r["plaintext_call_ms"]["median"]
        rows = {
            "predict / plaintext call": f"{r['ratio_to_plaintext_call']:.1f} x  ({encrypted:.2f} ms / {plain:.2f} ms)",
            "client": ", ".join(f"{stage} {warm[f'{stage}_ms']:.2f}" for stage in ("encrypt", "network", "decrypt"))
            + " ms",
            "server, pool warm": f"{warm['server_ms']:.2f} ms, of it {_server(warm)}",
            "server, pool empty": f"{cold['server_ms']:.2f} ms, of it {_server(cold)}",
            "sustained, with refilling": f"{single['records_a_second']:.0f} records a second one by one, "
            f"{full['records_a_second']:.0f} in calls of {full['records_a_call']}",
            "bytes": f"{r['bytes_up']:,} up, {r['bytes_down']:,} down, {r['key_bytes']:,} of public key once",
            "logit error": f"{r['max_logit_error']:.1e} at most, bound {r['error_bound']:.1e}",
        }
        security = f"{r['privacy']}, {r['security_bits']}-bit, {r['smudging_bits']} smudging bits"
        lines.append(f"{name} ({r['head']}): {r['plan']}, {security}")
        lines += [f"  {title:<25} {figures}" for title, figures in rows.items()]
    return "\n".join(lines) + "\n"


def _server(times: dict[str, Any]) -> str:
    return f"load {times['server_load_ms']:.2f}, evaluate and blind {times['server_evaluate_and_blind_ms']:.2f}"
