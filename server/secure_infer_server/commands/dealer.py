"""`secure-infer dealer`: correlated randomness for two parties, made ahead of their requests.

A third operator, who colludes with neither party: a dealer sees no input, answer or weight, but knows every mask.
"""

from __future__ import annotations

import argparse
import os
import sys

from secure_infer.mpc import generators
from secure_infer_server import flags
from secure_infer_server.commands import authenticated, observed, ready
from secure_infer_server.mpc.dealing import DealerProcess
from secure_infer_server.mpc.endpoint import Listening
from secure_infer_server.mpc.metrics import DealerMetrics
from secure_infer_server.mpc.roles import Role
from secure_infer_server.observe.collectors import CertificateMetrics, FileMetrics, StateMetrics
from secure_infer_server.report import Report, metrics_part, metrics_warnings, tls_part, tls_warnings, unread


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("secure-infer dealer", description=__doc__, epilog=flags.RULE)
    authenticated.add_configuration(parser, "these flags")
    authenticated.add_options(parser)
    observed.add_options(parser, traces=False)
    parser.add_argument(
        "--json", action="store_true", help="what --check-config finds, as JSON; the ready line is JSON anyway"
    )
    return parser


def run(arguments: list[str]) -> int:
    """Deal until SIGTERM; prints one JSON line when ready."""
    parser = _parser()
    options, _ = flags.options(parser, arguments, os.environ, lambda path: flags.alone(parser, path))
    listening = authenticated.listening(options, Role.DEALER)
    if options.check_config:
        return _check(listening, options.metrics, as_json=options.json)
    process = DealerProcess(listening)
    with observed.observed(options) as seen:
        generators.forbid()
        process.heed_signals()  # before anybody can know that this is ready
        if seen.metrics is not None:
            seen.metrics.add(CertificateMetrics(process.certificate), FileMetrics())
            seen.metrics.add(StateMetrics(process.ready), DealerMetrics(process.dealer))
            seen.metrics.ready = process.ready
        ready.say(process.start(), tls=not options.insecure, metrics=seen.address)
        process.wait()
        process.stop()
    return 0


def _check(listening: Listening, metrics: str | None, *, as_json: bool) -> int:
    variables, tls = flags.unread(_parser(), os.environ), listening.tls
    warnings = [*tls_warnings(tls, mutual=True), *metrics_warnings(listening.host, metrics), *unread(variables)]
    report = Report(warnings=warnings)
    where = f"at {listening.host}:{listening.port}"
    report.look(
        {
            "listening": lambda: (True, where),
            "tls": lambda: tls_part(tls),
            "metrics": lambda: metrics_part(metrics),
        }
    )
    sys.stdout.write(report.text(as_json=as_json) + "\n")
    return report.status
