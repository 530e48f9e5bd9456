"""What a party's configuration switches on, leaves off, and gets wrong: `party --check-config`, without serving.

Models are loaded and compiled; nobody is connected to.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from secure_infer import address as addresses
from secure_infer.mpc import sharefile
from secure_infer_server import checks, modes
from secure_infer_server.callers import own
from secure_infer_server.config import Configuration
from secure_infer_server.guarded import GuardSettings
from secure_infer_server.mpc.models import PartyModels
from secure_infer_server.mpc.process import PartySettings
from secure_infer_server.report import Part, Report, metrics_part, tls_part, tls_warnings
from secure_infer_server.report import unread as unread_warnings


def check(
    settings: PartySettings, configuration: Configuration | None, unread: Iterable[str] = (), metrics: str | None = None
) -> Report:
    """Loads everything. unread: environment variables that no flag reads. metrics: where they are served."""
    listening = settings.listening
    guards = GuardSettings() if configuration is None else configuration.guards
    served: list[str] = []
    report = Report(
        warnings=[
            *checks.exposure(listening.host, listening.tls, guards),
            *tls_warnings(listening.tls, mutual=True),
            *(() if listening.tls is None else own.for_servers_alone(listening.tls.certificate)),
            *checks.watching(listening.host, settings.reload.signers, metrics),
            *checks.files(configuration, settings.models, settings.reload),
            *modes.warnings(_halves(settings.models), []),
            *unread_warnings(unread),
        ]
    )
    report.look(
        {
            "models": lambda: _models(settings, guards, report, served),
            "tls": lambda: tls_part(listening.tls),
            "links": lambda: _links(settings),
            **checks.guarding(configuration, listening.tls, served, report),
            "signatures": lambda: checks.signatures_part(settings.reload),
            "metrics": lambda: metrics_part(metrics),
        }
    )
    if configuration is not None:
        report.require(lambda: configuration.require_decided(listening.host))
    return report


def _models(settings: PartySettings, guards: GuardSettings, report: Report, served: list[str]) -> Part:
    """served: to hold the models' names."""
    models = PartyModels.load(settings.models, settings.party, settings.policy, settings.policies, settings.reload)
    served += models.names()
    report.warnings += [f"model {name} is not served: {why}" for name, why in models.rejected.items()]
    guards.require_fit(models.names())
    return True, f"{', '.join(models.names())} at {settings.listening.host}:{settings.listening.port}"


def _halves(models: Path) -> list[Path]:
    """Files of this party's halves; none of a directory that cannot be read, which is an error of another part."""
    try:
        return [path for path in models.iterdir() if path.suffix == sharefile.SUFFIX]
    except OSError:
        return []


def _links(settings: PartySettings) -> Part:
    for flag, value in (("--peer", settings.peer), ("--dealer", settings.dealer)):
        addresses.parse(value, flag)
    verb = "awaits party 1" if settings.party == 0 else "finds party 0"
    return True, f"{verb} at {settings.peer}, its dealer at {settings.dealer}"
