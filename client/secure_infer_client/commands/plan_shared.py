"""`secure-infer plan --scheme mpc`: how two parties would evaluate a head together, what that costs, and who learns what.

For a file, the program is made here; for a model at two parties (`--target A --target B --model NAME`), it is theirs.
Computing is measured on this machine, on weights made up of the program's shapes.
"""

from __future__ import annotations

import argparse
import json
from math import log2
from pathlib import Path
from typing import Any

from secure_infer.ckks.link import PRESETS, Link
from secure_infer.errors import SettingsError
from secure_infer.heads import Head, ModelSpec
from secure_infer.mpc.compiler import DEFAULT_ERROR, RELATIVE_ERROR, compile_head
from secure_infer.mpc.program import Answers, Comparisons, Program, Weights
from secure_infer_client.commands import connection
from secure_infer_client.mpc.session import rows_a_request
from secure_infer_client.planning import shared_table, shared_work


def run(arguments: list[str]) -> int:
    """Explain the program; prints lines, or one JSON object. Raises UnsupportedHead when no fixed point fits the head."""
    if any(argument.startswith("--target") for argument in arguments):
        return _of_parties(connection.help_alone(arguments))
    return _of_file(arguments)


def _of_file(arguments: list[str]) -> int:
    parser = _parser()
    parser.add_argument("head", type=Path, metavar="FILE.head", help="a head; or --target, --target and --model")
    parser.add_argument("--scheme", choices=["mpc"], required=True, help="two parties")
    parser.add_argument(
        "--weights", choices=list(Weights), default=Weights.REPLICATED, help="who holds them (replicated: both parties)"
    )
    parser.add_argument(
        "--answers", choices=list(Answers), default=Answers.LOGITS, help="what the client learns (logits)"
    )
    parser.add_argument(
        "--comparisons", choices=list(Comparisons), default=Comparisons.TABLES, help="how signs are found (tables)"
    )
    parser.add_argument(
        "--error",
        type=float,
        metavar="BOUND",
        help=f"wanted bound on the logit error; default {DEFAULT_ERROR:g}, and where no fixed point keeps that, four times as "
        f"much until one does, up to about 2^{int(log2(RELATIVE_ERROR))} of the logits' range",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.error is not None and not 0 < options.error < 1e6:
        raise SettingsError(f"--error: expected a positive bound on the logit error, got {options.error}")
    links = _links(options)
    head = Head.load(options.head)
    program = compile_head(
        head,
        error=options.error,
        weights=Weights(options.weights),
        answers=Answers(options.answers),
        comparisons=Comparisons(options.comparisons),
    ).program
    return _show(options, ModelSpec.of(options.head.stem, head), program, links)


def _of_parties(arguments: list[str]) -> int:
    parser = _parser()
    connection.add_options(parser)
    options = parser.parse_args(arguments)
    links = _links(options)
    with connection.client(options) as client:
        spec, program = client.spec, client.plan
    return _show(options, spec, program, links)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "secure-infer plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--batch", type=int, metavar="B", help="what B records take too, in as few requests as it takes"
    )
    parser.add_argument(
        "--link",
        metavar="LINK",
        help=f"ways between all of them: {', '.join(PRESETS)} (all of these), or bandwidth and round trip: 100mbit,20ms",
    )
    return parser


def _links(options: argparse.Namespace) -> dict[str, Link]:
    if options.batch is not None and options.batch < 1:
        raise SettingsError(f"--batch: expected a number of records, at least 1, got {options.batch}")
    names = list(PRESETS) if options.link is None else [options.link]
    return {name: Link.parse(name) for name in names}


def _show(options: argparse.Namespace, spec: ModelSpec, program: Program, links: dict[str, Link]) -> int:
    facts: dict[str, Any] = {
        "model": spec.name,
        "digest": spec.digest,
        "features": spec.contract.features,
        "outputs": spec.outputs,
        "layers": list(spec.layers),
        "public_layers": len(spec.public_layers),
    }
    most = rows_a_request(program)
    batch = None if options.batch is None else shared_work.taken(program, options.batch, most)
    report = shared_table.SharedReport(facts, program, links, shared_work.taken(program, 1, most), batch)
    if options.json:
        connection.show([json.dumps(shared_table.as_json(report))])
        return 0
    heading = f"{spec.name}: {spec.encrypted.features} -> {spec.outputs} ({', '.join(spec.layers)})"
    connection.show([heading, *shared_table.lines(report)])
    return 0
