"""`secure-infer serve`: one CKKS server."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

from secure_infer import address
from secure_infer.address import is_loopback
from secure_infer.ckks.plan import DEFAULT_ERROR, DEFAULT_SMUDGING, Privacy
from secure_infer.errors import SettingsError
from secure_infer_server import check, config, flags, heap
from secure_infer_server.app import App
from secure_infer_server.callers import transport
from secure_infer_server.commands import drain, observed, per_model, ready, reloading
from secure_infer_server.config import Configuration
from secure_infer_server.guarded import GuardedGate
from secure_infer_server.keys.settings import VARIABLE, KeySettings
from secure_infer_server.observe.collectors import AuditMetrics, CertificateMetrics, FileMetrics, StateMetrics
from secure_infer_server.observe.endpoint import MetricsServer
from secure_infer_server.observe.server import KeyMetrics, ModelMetrics, WorkerMetrics
from secure_infer_server.settings import Policy, Settings
from secure_infer_server.tls import Tls
from secure_infer_server.workers.settings import WorkerSettings, usual_count

log = logging.getLogger(__name__)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("secure-infer serve", description=__doc__, epilog=flags.RULE)
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"TOML file of these flags, keys, callers, budgets and audit; default what {config.VARIABLE} names",
    )
    parser.add_argument(
        "--check-config", action="store_true", help="load everything, say what is on and off, and serve nothing"
    )
    parser.add_argument(
        "--models",
        type=Path,
        required=True,
        metavar="DIR",
        help="serve every *.head in DIR; a model's name is its file's stem",
    )
    parser.add_argument(
        "--listen", required=True, metavar="HOST:PORT", help="port 0 picks a free one; the ready line says which"
    )
    parser.add_argument(
        "--insecure", action=argparse.BooleanOptionalAction, default=False, help="no TLS; loopback only"
    )
    parser.add_argument("--tls-cert", type=Path, metavar="F", help="server certificate chain, PEM")
    parser.add_argument("--tls-key", type=Path, metavar="F", help="its private key, PEM")
    parser.add_argument("--client-ca", type=Path, metavar="F", help="demand client certificates signed by this CA, PEM")
    models = parser.add_argument_group("privacy, for all models or one: VALUE or MODEL=VALUE, repeatable")
    models.add_argument(
        "--privacy",
        action="append",
        default=[],
        metavar="[MODEL=]LEVEL",
        help=f"{' or '.join(Privacy)}; default {Privacy.BOTH_PRIVATE}",
    )
    models.add_argument(
        "--smudging",
        action="append",
        default=[],
        metavar="[MODEL=]BITS",
        help=f"least smudging bits; default {DEFAULT_SMUDGING}",
    )
    models.add_argument(
        "--batch-smudging",
        action="append",
        default=[],
        metavar="[MODEL=]BITS",
        help="least smudging bits of batch plans, which hide the model only from key holders who made all their keys "
        "honestly; default as --smudging, 0 offers none",
    )
    models.add_argument(
        "--error",
        action="append",
        default=[],
        metavar="[MODEL=]BOUND",
        help=f"wanted bound on the logit error; default {DEFAULT_ERROR:g}, with hidden layers 2^-16 of the range if larger",
    )
    parser.add_argument(
        "--blinds-per-key",
        type=int,
        default=48,
        metavar="N",
        help="blinds prepared ahead for each client key; 0 makes each during its request",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=usual_count(),
        metavar="N",
        help="processes for plans that take longer than a millisecond or two; default one a core; 0: threads instead",
    )
    parser.add_argument("--queue", type=int, default=64, metavar="N", help="requests that wait for a worker at most")
    parser.add_argument(
        "--worker-memory", type=int, default=2048, metavar="MIB", help="a worker that grows beyond this is replaced"
    )
    parser.add_argument("--batches", type=int, default=2, metavar="N", help="batches evaluated at once; 0: none at all")
    parser.add_argument("--batch-memory", type=int, default=2048, metavar="MIB", help="memory for their sums")
    parser.add_argument("--key-memory", type=int, default=1024, metavar="MIB", help="memory for clients' public keys")
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="DIR",
        dest="keys_directory",  # a configuration's `keys` is a table
        help="keep clients' public keys on disk; default in memory, until the end",
    )
    parser.add_argument(
        "--keys-redis",
        type=Path,
        metavar="URL-FILE",
        help=f"keep them in the Redis whose URL the file holds, or {VARIABLE}; for several servers behind one name",
    )
    drain.add_option(parser)
    reloading.add_options(parser)
    observed.add_options(parser)
    parser.add_argument(
        "--reflection",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="tell callers which services there are (gRPC server reflection)",
    )
    parser.add_argument(
        "--open-inference",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also speak the Open Inference Protocol (KServe's and Triton's), for encrypted queries",
    )
    parser.add_argument(
        "--plaintext-baseline",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also answer plaintext rows; for benchmarks, never for patients",
    )
    parser.add_argument(
        "--json", action="store_true", help="what --check-config finds, as JSON; the ready line is JSON anyway"
    )
    return parser


_POLICY = {
    "privacy": (Privacy, " or ".join(Privacy)),
    "smudging": (int, "a whole number"),
    "batch_smudging": (int, "a whole number"),
    "error": (float, "a number"),
}


def _settings(options: argparse.Namespace, configuration: Configuration | None = None) -> Settings:
    if (options.tls_cert is None) != (options.tls_key is None):
        raise SettingsError("--tls-cert and --tls-key go together; one is missing")
    if options.client_ca is not None and options.tls_cert is None:
        raise SettingsError("--client-ca needs --tls-cert and --tls-key")
    host, port = address.parse(options.listen, "--listen (port 0 picks a free one)")
    policy, policies = per_model.policies(options, Policy(), _POLICY)
    keys = KeySettings() if configuration is None else configuration.keys
    tls = None if options.tls_cert is None else Tls(options.tls_cert, options.tls_key, options.client_ca)
    return Settings(
        models=options.models,
        host=host,
        port=port,
        tls=tls,
        insecure=options.insecure,
        policy=policy,
        policies=policies,
        plaintext_baseline=options.plaintext_baseline,
        open_inference=options.open_inference,
        reflection=options.reflection,
        key_bytes=options.key_memory << 20,
        keys=keys.at(options.keys_directory, options.keys_redis),
        drain=drain.seconds(options),
        reload=reloading.settings(options),
        blinds_per_key=max(0, options.blinds_per_key),
        batches=max(0, options.batches),
        batch_bytes=max(0, options.batch_memory) << 20,
        workers=WorkerSettings(options.workers, options.queue, options.worker_memory << 20),
    )


def run(arguments: list[str]) -> int:
    """Serve until SIGTERM; prints one JSON line when ready."""
    options, configuration = config.options(_parser(), arguments, os.environ)
    settings = _settings(options, configuration)
    if options.check_config:
        report = check.check(settings, configuration, _unread(), options.metrics)
        sys.stdout.write(report.text(as_json=options.json) + "\n")
        return report.status
    heap.keep_small()
    with observed.observed(options) as seen:
        check.require_sound(settings, configuration)
        gate: GuardedGate | None = None
        if configuration is not None and configuration.guards.any:
            gate = GuardedGate(configuration.guards)
        try:
            return _serve(settings, configuration, gate, seen)
        finally:
            if gate is not None:
                gate.close()


def _unread() -> list[str]:
    return flags.unread(_parser(), os.environ, VARIABLE)


def _serve(
    settings: Settings, configuration: Configuration | None, gate: GuardedGate | None, seen: observed.Observed
) -> int:
    app = App(settings, gate, seen.observers, books=None if gate is None else gate.books)
    if seen.metrics is not None:
        _tell(app, gate, seen.metrics)
    app.heed_signals()  # before anybody can know that this is ready
    if gate is not None:
        gate.start()
    listening = app.start()
    for name, reason in app.registry.rejected.items():
        log.error("model %s is not served: %s", name, reason)
    _warn(settings, configuration, listening, seen.address)
    ready.say(
        listening,
        tls=settings.tls is not None,
        metrics=seen.address,
        models=app.registry.names(),
        without_plan={name: app.registry.get(name).no_plan_reason for name in app.registry.without_plan()},
        rejected=app.registry.rejected,
    )
    app.wait()
    return 0


def _tell(app: App, gate: GuardedGate | None, metrics: MetricsServer) -> None:
    """What is known of this server, for whoever reads its metrics."""
    front = app.front
    metrics.add(CertificateMetrics(app.certificate), FileMetrics(), StateMetrics(lambda: app.ready))
    metrics.add(ModelMetrics(app.registry), WorkerMetrics(front.pool, front.lane), KeyMetrics(front.clients.vault))
    if gate is not None:
        metrics.add(AuditMetrics(gate.audit_lag))
    metrics.live, metrics.ready = app.alive, lambda: app.ready


def _warn(settings: Settings, configuration: Configuration | None, listening: str, metrics: str | None) -> None:
    """Into the log; a server without a configuration on loopback is for trying out and says nothing."""
    if configuration is not None or not is_loopback(settings.host):
        for text in check.warnings(settings, configuration, _unread(), metrics):
            log.warning("%s", text)
    if settings.tls is not None:
        host, port = address.parse(listening, "address")
        with suppress(OSError):
            if transport.accepts_tls12(host, port):
                log.warning("this server takes TLS 1.2, although it should not; is `secure-infer` what started it?")
