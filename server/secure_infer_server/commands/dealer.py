"""`secure-infer dealer`: correlated randomness for two parties, made ahead of their requests.

A third operator, who colludes with neither party: a dealer sees no input, answer or weight, but knows every mask.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import ExitStack

from secure_infer.mpc import generators
from secure_infer_server import logs
from secure_infer_server.commands import authenticated
from secure_infer_server.mpc.dealing import DealerProcess
from secure_infer_server.mpc.metrics import DealerMetrics, MetricsServer
from secure_infer_server.mpc.roles import Role


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("secure-infer dealer", description=__doc__)
    authenticated.add_options(parser)
    parser.add_argument("--metrics", metavar="HOST:PORT", help="serve Prometheus metrics there, over plain HTTP")
    parser.add_argument(
        "--json", action="store_true", help="the ready line is JSON anyway; accepted so that every command takes it"
    )
    return parser


def run(arguments: list[str]) -> int:
    """Deal until SIGTERM; prints one JSON line when ready."""
    options = _parser().parse_args(arguments)
    process = DealerProcess(authenticated.listening(options, Role.DEALER, "for a dealer"))
    logs.start()
    generators.forbid()
    process.heed_signals()  # before anybody can know that this is ready
    with ExitStack() as stack:
        metrics = None
        if options.metrics is not None:
            metrics = stack.enter_context(MetricsServer(options.metrics, DealerMetrics(process.dealer)))
        ready = {
            "event": "ready",
            "address": process.start(),
            "tls": not options.insecure,
            "metrics": metrics and metrics.address,
            "pid": os.getpid(),
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        process.wait()
        process.stop()
    return 0
