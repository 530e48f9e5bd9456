"""`secure-infer party`: one of two parties that evaluate secret-shared queries together.

Its operator must not collude with the other party's, nor with the dealer's: any two of the three together see everything.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from secure_infer.mpc import generators
from secure_infer.mpc.program import Answers, Comparisons
from secure_infer_server import logs
from secure_infer_server.commands import authenticated, per_model
from secure_infer_server.mpc.metrics import MetricsServer, StoreMetrics
from secure_infer_server.mpc.models import PartyPolicy
from secure_infer_server.mpc.process import PartyProcess, PartySettings

log = logging.getLogger(__name__)

_POLICY = {
    "answers": (Answers, " or ".join(Answers)),
    "comparisons": (Comparisons, " or ".join(Comparisons)),
    "error": (float, "a number"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("secure-infer party", description=__doc__)
    parser.add_argument("--id", type=int, choices=[0, 1], required=True, help="which of the two parties this is")
    parser.add_argument(
        "--models",
        type=Path,
        required=True,
        metavar="DIR",
        help="serve every *.head (both parties hold the weights) and every *.share (each holds a share of them)",
    )
    parser.add_argument(
        "--peer",
        required=True,
        metavar="HOST:PORT",
        help="the link between the parties: party 0 listens there, party 1 connects there",
    )
    parser.add_argument("--dealer", required=True, metavar="HOST:PORT", help="where correlated randomness comes from")
    authenticated.add_options(parser)
    models = parser.add_argument_group(
        "for all models with weights at both parties, or one: VALUE or MODEL=VALUE, alike at both"
    )
    models.add_argument(
        "--answers",
        action="append",
        default=[],
        metavar="[MODEL=]WHAT",
        help="logits (default), or label and nothing else",
    )
    models.add_argument(
        "--comparisons",
        action="append",
        default=[],
        metavar="[MODEL=]HOW",
        help="how signs are found: tables (one-time truth tables, default), or crypten (its protocols; extra mpc)",
    )
    models.add_argument(
        "--error", action="append", default=[], metavar="[MODEL=]BOUND", help="wanted bound on the logit error"
    )
    parser.add_argument("--lanes", type=int, default=4, metavar="N", help="requests evaluated at once; alike at both")
    parser.add_argument(
        "--store-memory", type=int, default=256, metavar="MIB", help="memory for correlations held ahead (256)"
    )
    parser.add_argument("--metrics", metavar="HOST:PORT", help="serve Prometheus metrics there, without TLS")
    parser.add_argument(
        "--json", action="store_true", help="the ready line is JSON anyway; accepted so that every command takes it"
    )
    return parser


def run(arguments: list[str]) -> int:
    """Serve until SIGTERM; prints one JSON line when ready."""
    options = _parser().parse_args(arguments)
    policy, policies = per_model.policies(options, PartyPolicy(), _POLICY)
    settings = PartySettings(
        party=options.id,
        models=options.models,
        listening=authenticated.listening(options),
        peer=options.peer,
        dealer=options.dealer,
        policy=policy,
        policies=policies,
        lanes=options.lanes,
        store_bytes=max(1, options.store_memory) << 20,
    )
    logs.start()
    generators.forbid()
    process = PartyProcess(settings)
    process.heed_signals()  # before anybody can know that this is ready
    address, peer = process.start()
    metrics = None if options.metrics is None else MetricsServer(options.metrics, StoreMetrics(process.stores))
    for name, reason in process.models.rejected.items():
        log.error("model %s is not served: %s", name, reason)
    ready = {
        "event": "ready",
        "party": options.id,
        "address": address,
        "peer": peer,
        "metrics": None if metrics is None else metrics.address,
        "tls": settings.listening.identity is not None,
        "models": process.models.names(),
        "rejected": process.models.rejected,
        "pid": os.getpid(),
    }
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    process.wait()
    process.stop()
    if metrics is not None:
        metrics.close()
    return 0
