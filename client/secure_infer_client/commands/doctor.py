"""`secure-infer doctor`: looks at the installation, this machine and the way to a server, and says what to do."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict

from secure_infer.errors import SettingsError
from secure_infer_client.commands import connection as options_of
from secure_infer_client.doctor import connection, installation, machine
from secure_infer_client.doctor.finding import Finding, State


def run(arguments: list[str]) -> int:
    """Look; prints a line a look, or one JSON object. Returns 1 when there is a problem."""
    parser = argparse.ArgumentParser("secure-infer doctor", description=__doc__)
    options_of.add_options(parser, required=False)
    parser.add_argument("--query", action="store_true", help="send three rows of zeros as well; they count for budgets")
    parser.add_argument(
        "--calibrate", action="store_true", help="measure this machine's unit costs anew, and keep them"
    )
    options = parser.parse_args(arguments)
    if options.model and not options.target:
        raise SettingsError("--model: give --target as well")
    if options.query and not options.model:
        raise SettingsError("--query: give --target and --model as well")
    findings = []
    for finding in _looks(options):
        findings.append(finding)
        if not options.json:
            sys.stdout.write(finding.line() + "\n")
            sys.stdout.flush()
    problems = sum(finding.state is State.PROBLEM for finding in findings)
    if options.json:
        sys.stdout.write(json.dumps({"ok": not problems, "findings": [asdict(f) for f in findings]}) + "\n")
    else:
        sys.stdout.write("all well\n" if not problems else f"{problems} problem{'s' * (problems > 1)}\n")
    return 1 if problems else 0


def _looks(options: argparse.Namespace) -> Iterator[Finding]:
    yield from installation.looks()
    yield from machine.looks(calibrate=options.calibrate)
    if not options.target:
        return
    way = connection.Way(
        tuple(options.target),
        options.root_certificates,
        options.private_key,
        options.certificate_chain,
        options_of.token(options),
    )
    make = None if options.model is None else (lambda: options_of.client(options))
    yield from connection.looks(way, make, query=options.query)
