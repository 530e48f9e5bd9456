"""`secure-infer plan`: how a head would be evaluated under encryption, what that costs and hides, and what else was considered.

For a file, every plan is tried with this machine's speed. For a model on a server (`plan --target HOST:PORT --model
NAME`, see `plan --target --help`), the plans it offers are compared, and nothing of its weights is known here. For two
parties instead of one server, see `plan --scheme mpc --help`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from secure_infer import address
from secure_infer.ckks import disclosure, planner
from secure_infer.ckks.calibration import unit_costs
from secure_infer.ckks.link import PRESETS, Link
from secure_infer.ckks.plan import DEFAULT_ERROR, DEFAULT_SMUDGING, MAX_SMUDGING, Privacy
from secure_infer.errors import SettingsError, UnsupportedHead
from secure_infer.heads import Head
from secure_infer.heads.split import contract_after, private_network, public_layers
from secure_infer_client.commands import connection, plan_shared
from secure_infer_client.planning import costed, table
from secure_infer_client.schemes import SCHEMES, targets_of


def run(arguments: list[str]) -> int:
    """Explain the plans; prints lines, or one JSON object. Raises UnsupportedHead, once that is explained, when none fits."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--scheme", choices=SCHEMES, default="ckks")
    if early.parse_known_args(arguments)[0].scheme == "mpc":
        return plan_shared.run(arguments)
    if any(argument.startswith("--target") for argument in arguments):
        return _of_server(connection.help_alone(arguments))
    return _of_file(arguments)


def _of_file(arguments: list[str]) -> int:
    parser = _parser("secure-infer plan")
    parser.add_argument("head", type=Path, metavar="FILE.head", help="a head; or --target and --model, see above")
    parser.add_argument("--scheme", choices=SCHEMES, default="ckks", help="ckks, or mpc: two parties, see above")
    parser.add_argument(
        "--privacy", choices=list(Privacy), default=Privacy.BOTH_PRIVATE, help="both-private by default"
    )
    parser.add_argument(
        "--error",
        type=float,
        metavar="BOUND",
        help=f"wanted bound on the logit error; default {DEFAULT_ERROR:g}, with hidden layers 2^-16 of the range if larger",
    )
    parser.add_argument("--smudging", type=int, metavar="BITS", help=f"least smudging bits ({DEFAULT_SMUDGING})")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.error is not None and not 0 < options.error < 1e6:
        raise SettingsError(f"--error: expected a positive bound on the logit error, got {options.error}")
    if options.smudging is not None and not 1 <= options.smudging <= MAX_SMUDGING:
        raise SettingsError(f"--smudging: expected 1 to {MAX_SMUDGING} bits, got {options.smudging}")
    _check_batch(options.batch)
    link = Link.parse(options.link or "lan")
    head = Head.load(options.head)
    network, contract = private_network(head), contract_after(public_layers(head), head.contract)
    wanted = planner.demand(
        network, contract, privacy=Privacy(options.privacy), error=options.error, smudging=options.smudging
    )
    facts: dict[str, Any] = {
        "model": options.head.stem,
        "digest": head.digest,
        "features": head.features,
        "outputs": head.outputs,
        "layers": [layer.kind for layer in head.layers],
        "public_layers": head.public_layers,
        "widths": list(network.widths),
        "activation_degrees": [layer.degree for layer in network.hidden],
        "largest_logit": planner.largest_output(network, contract),
        "privacy": str(wanted.privacy),
        "error": wanted.error,
        "smudging_bits": wanted.smudging if wanted.privacy is Privacy.BOTH_PRIVATE else 0,
    }
    if not options.json:
        smudging = f", at least {wanted.smudging} smudging bits" if facts["smudging_bits"] else ""
        connection.show(
            [
                *_heading(facts),
                f"range: |logit| <= {facts['largest_logit']:.3g} on every input that is accepted",
                f"wanted: {wanted.privacy}, logit error at most {wanted.error:.3g}{smudging}",
                f"times: estimated from this machine's unit costs, link {link}",
            ]
        )
    found = planner.explore(network, contract, wanted, unit_costs(), link)
    single, rejected = costed.of_candidates(found.candidates), found.rejected
    batches: list[costed.Batch] = []
    if options.batch or not single:  # some heads fit in batches alone
        many = planner.batch_candidates(network, contract, wanted, unit_costs(), link)
        batches, rejected = costed.of_batches(many.candidates), [*rejected, *many.rejected]
    report = table.Report(facts, wanted.privacy, link, single, batches, rejected, options.batch)
    _show(report, options.json)
    if not report.ways:
        raise planner.refusal(rejected, network, wanted)
    return 0


def _of_server(arguments: list[str]) -> int:
    parser = _parser("secure-infer plan")
    connection.add_options(parser)
    options = parser.parse_args(arguments)
    _check_batch(options.batch)
    asked = None if options.privacy is None else Privacy(options.privacy)
    (target,) = targets_of(options.target, options.scheme)
    local = address.is_loopback(address.parse(target, "--target")[0])
    link = Link.parse(options.link or ("loopback" if local else "lan"))
    with connection.client(options) as client:
        spec, served = client.spec, client.offered
    facts: dict[str, Any] = {
        "model": spec.name,
        "digest": spec.digest,
        "features": spec.contract.features,
        "outputs": spec.outputs,
        "layers": list(spec.layers),
        "public_layers": len(spec.public_layers),
        "encrypted_features": spec.encrypted.features,
    }
    single, batches = costed.of_offers(served.offers, served.unit_costs, link)
    report = table.Report(facts, asked or Privacy.BOTH_PRIVATE, link, single, batches, records=options.batch)
    if report.chosen is not None:
        plan = report.chosen.plan
        facts |= {
            "answer_range": plan.answer_range,
            "privacy": str(plan.privacy),
            "error": plan.error_bound,
            "smudging_bits": plan.smudging_bits,
        }
    if not options.json:
        lines = _heading(facts)
        if report.chosen is not None:
            lines.append(f"range: |logit| <= {plan.answer_range:g}, which the server rounds up to a power of two")
            lines.append(
                f"offered: {plan.privacy}; times: the server's own figures, its unit costs here too, link {link}"
            )
        connection.show(lines)
    _show(report, options.json)
    if report.chosen is None:
        raise UnsupportedHead(f"model {spec.name!r} cannot be evaluated under encryption: {served.reason}")
    return 0


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--batch", type=int, metavar="B", help="what B records take too, with batch plans, and what is quickest then"
    )
    parser.add_argument(
        "--link",
        metavar="LINK",
        help=f"way to the server: {', '.join(PRESETS)}, or bandwidth and round trip: 100mbit,20ms",
    )
    return parser


def _check_batch(batch: int | None) -> None:
    if batch is not None and batch < 1:
        raise SettingsError(f"--batch: expected a number of records, at least 1, got {batch}")


def _heading(facts: dict[str, Any]) -> list[str]:
    widths = facts.get("widths", [])
    shape = " -> ".join(map(str, widths or [facts["features"], facts["outputs"]]))
    degrees = facts.get("activation_degrees")
    before = f"{facts['features']} -> public layers -> " if facts["public_layers"] and widths else ""
    return [
        f"{facts['model']}: {before}{shape}"
        + (f", activations of degree {', '.join(map(str, degrees))}" if degrees else "")
        + f" ({', '.join(facts['layers'])})",
        disclosure.of_layers(facts["layers"], facts["public_layers"]),
    ]


def _show(report: table.Report, as_json: bool) -> None:
    connection.show([json.dumps(table.as_json(report))] if as_json else table.lines(report))
