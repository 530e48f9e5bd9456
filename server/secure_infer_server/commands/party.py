"""`secure-infer party`: one of two parties that evaluate secret-shared queries together.

Its operator must not collude with the other party's, nor with the dealer's: any two of the three together see everything.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from secure_infer import address as addresses
from secure_infer.errors import SettingsError
from secure_infer.mpc import generators
from secure_infer.mpc.compiler import ERROR_EXPECTED, error_bound
from secure_infer.mpc.program import Answers, Comparisons
from secure_infer_server import config, flags
from secure_infer_server.commands import authenticated, observed, per_model, ready, reloading
from secure_infer_server.guarded import GuardedGate
from secure_infer_server.mpc import checks, roles
from secure_infer_server.mpc.endpoint import Listening
from secure_infer_server.mpc.metrics import StoreMetrics
from secure_infer_server.mpc.models import PartyPolicy
from secure_infer_server.mpc.process import PartyProcess, PartySettings
from secure_infer_server.observe.collectors import AuditMetrics, CertificateMetrics, FileMetrics, StateMetrics

log = logging.getLogger(__name__)

_POLICY = {
    "answers": (Answers, " or ".join(Answers)),
    "comparisons": (Comparisons, " or ".join(Comparisons)),
    "error": (error_bound, ERROR_EXPECTED),
}
_KINDS = {"answers": str, "comparisons": str, "error": float}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("secure-infer party", description=__doc__, epilog=flags.RULE)
    authenticated.add_configuration(parser, "these flags, callers, budgets and audit")
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
        "for all models, or one: VALUE or MODEL=VALUE, alike at both; *.share files carry their owner's"
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
    reloading.add_options(parser)
    observed.add_options(parser, traces=False)
    parser.add_argument(
        "--json", action="store_true", help="what --check-config finds, as JSON; the ready line is JSON anyway"
    )
    return parser


def run(arguments: list[str]) -> int:
    """Serve until SIGTERM; prints one JSON line when ready."""
    options, configuration = config.options(_parser(), arguments, os.environ, _KINDS, config.PARTY_SECTIONS)
    policy, policies = per_model.policies(options, PartyPolicy(), _POLICY)
    settings = PartySettings(
        party=options.id,
        models=options.models,
        listening=authenticated.listening(options, roles.of_party(options.id)),
        peer=options.peer,
        dealer=options.dealer,
        policy=policy,
        policies=policies,
        lanes=options.lanes,
        store_bytes=max(1, options.store_memory) << 20,
        reload=reloading.settings(options),
    )
    _require_two_ports(options.peer, settings.listening)
    if options.check_config:
        report = checks.check(settings, configuration, flags.unread(_parser(), os.environ), options.metrics)
        sys.stdout.write(report.text(as_json=options.json) + "\n")
        return report.status
    with observed.observed(options) as seen:
        generators.forbid()
        gate: GuardedGate | None = None
        if configuration is not None:
            configuration.require_decided(settings.listening.host)
            gate = GuardedGate(configuration.guards) if configuration.guards.any else None
        try:
            return _serve(settings, gate, seen)
        finally:
            if gate is not None:
                gate.close()


def _require_two_ports(peer: str, listening: Listening) -> None:
    """Raise SettingsError when the link between the parties is where clients come."""
    if addresses.parse(peer, "--peer") == (listening.host, listening.port) and listening.port:
        raise SettingsError(
            f"--peer: {peer} is the address of --listen, where clients come; the link between the parties takes another port"
        )


def _serve(settings: PartySettings, gate: GuardedGate | None, seen: observed.Observed) -> int:
    process = PartyProcess(settings, gate, seen.observers, None if gate is None else gate.books)
    if gate is not None:
        gate.start()
    process.heed_signals()  # before anybody can know that this is ready
    if seen.metrics is not None:
        seen.metrics.add(CertificateMetrics(process.certificate), FileMetrics())
        seen.metrics.add(StateMetrics(process.ready), StoreMetrics(process.stores))
        if gate is not None:
            seen.metrics.add(AuditMetrics(gate.audit_lag))
        seen.metrics.ready = process.ready
    address, peer = process.start()
    for name, reason in process.models.rejected.items():
        log.error("model %s is not served: %s", name, reason)
    ready.say(
        address,
        tls=settings.listening.identity is not None,
        metrics=seen.address,
        party=settings.party,
        peer=peer,
        models=process.models.names(),
        programs={name: process.models.get(name).settings for name in process.models.names()},
        rejected=process.models.rejected,
    )
    process.wait()
    process.stop()
    return 0
