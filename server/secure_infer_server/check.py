"""What a configuration switches on, leaves off, and gets wrong: `serve --check-config`, without serving.

Everything is read, and plans are made; nothing is written, so that a server may be running with the same files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from secure_infer.address import is_loopback
from secure_infer.errors import SecureInferError, SettingsError
from secure_infer_server.audit.settings import AuditSettings
from secure_infer_server.audit.signing import Signer
from secure_infer_server.budgets import Allowance, BudgetSettings
from secure_infer_server.budgets.ledger import Ledger
from secure_infer_server.callers import transport
from secure_infer_server.callers.authenticator import Authenticator
from secure_infer_server.callers.credentials import server_credentials
from secure_infer_server.callers.permissions import Permissions
from secure_infer_server.config import Configuration
from secure_infer_server.guarded import CallerSettings
from secure_infer_server.registry import Registry
from secure_infer_server.settings import Settings


@dataclass
class Report:
    """Lines by part; errors are what `serve` would not start with."""

    on: dict[str, str] = field(default_factory=dict)
    off: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """As read by people."""
        for word, parts in (("on ", self.on), ("off", self.off)):
            yield from (f"{word}      {name}: {text}" for name, text in parts.items())
        for word, texts in (("warning", self.warnings), ("error  ", self.errors)):
            yield from (f"{word}  {text}" for text in texts)


def require_sound(settings: Settings, configuration: Configuration | None) -> None:
    """Raise SettingsError for parts that each hold and together do not."""
    if configuration is None:
        return
    guards = configuration.guards
    if guards.budgets is not None and settings.plaintext_baseline:
        raise SettingsError("--plaintext-baseline answers exactly and uncounted; switch it off, or the budgets")
    configuration.require_decided(settings.host)
    callers, tls = guards.callers, settings.tls
    if callers and tls and tls.client_ca is None and not callers.authenticator.issuers:
        raise SettingsError(
            "[callers]: nothing could vouch for anybody; give client_ca, or [[callers.issuers]] whose tokens are taken"
        )


def warnings(settings: Settings, configuration: Configuration | None) -> Iterator[str]:
    """What holds together, and yet is seldom meant."""
    guards = None if configuration is None else configuration.guards
    remote, tls = not is_loopback(settings.host), settings.tls
    callers = None if guards is None else guards.callers
    audit = None if guards is None else guards.audit
    if tls is None:
        yield "callers are anonymous: without TLS nothing tells them apart"
    elif callers is None and tls.client_ca is None:
        yield "callers are anonymous: give client_ca, or [callers] with issuers of tokens"
    if remote and (callers is None or callers.permissions is None):
        yield "no policy: whoever can connect may ask any model; name the rules' file in [callers]"
    if remote and (guards is None or guards.budgets is None):
        yield "budgets are off: about as many answers as a linear head has features give it away"
    if remote and audit is None:
        yield "the audit log is off: nothing says afterwards who asked what"
    if audit is not None and audit.key_file.resolve().is_relative_to(audit.directory.resolve()):
        yield f"the audit key {audit.key_file} is in the log's directory: who can rewrite the log can sign it; keep it elsewhere"
    if settings.plaintext_baseline:
        yield "the plaintext baseline is on: rows can be asked in the clear; for benchmarks, never for patients"
    if tls is not None and os.environ.get(transport.VARIABLE) != transport.SUITE:
        yield f"TLS 1.2 is taken as well: {transport.VARIABLE} is set to something else; unset it"


def check(settings: Settings, configuration: Configuration | None) -> Report:
    """Loads everything."""
    report = Report(warnings=list(warnings(settings, configuration)))
    parts: dict[str, Callable[[], tuple[bool, str]]] = {
        "models": lambda: _models(settings, configuration, report),
        "tls": lambda: _tls(settings),
        "callers": lambda: _callers(None if configuration is None else configuration.guards.callers),
        "budgets": lambda: _budgets(configuration),
        "audit": lambda: _audit(None if configuration is None else configuration.guards.audit),
    }
    for name, look in parts.items():
        try:
            on, text = look()
        except SecureInferError as error:
            report.errors.append(error.message)
        else:
            (report.on if on else report.off)[name] = text
    try:
        require_sound(settings, configuration)
    except SettingsError as error:
        report.errors.append(error.message)
    return report


def _models(settings: Settings, configuration: Configuration | None, report: Report) -> tuple[bool, str]:
    registry = Registry.load(settings)
    report.warnings += [f"model {name} is not served: {why}" for name, why in registry.rejected.items()]
    for name in registry.without_plan():
        report.warnings.append(f"model {name} has no plan: {registry.get(name).no_plan_reason}")
    if configuration is not None:
        configuration.guards.require_fit(registry.names())
    return True, f"{', '.join(registry.names())} at {settings.host}:{settings.port}"


def _tls(settings: Settings) -> tuple[bool, str]:
    if settings.tls is None:
        return False, "plaintext, on loopback alone"
    server_credentials(settings.tls.certificate, settings.tls.key, settings.tls.client_ca)
    clients = "of clients that a CA signed" if settings.tls.client_ca else "without client certificates"
    return True, f"{settings.tls.certificate}, {clients}"


def _callers(callers: CallerSettings | None) -> tuple[bool, str]:
    if callers is None:
        return False, "everybody may call"
    Authenticator(callers.authenticator)
    said = ["certificates", *(f"tokens of {issuer.name}" for issuer in callers.authenticator.issuers)]
    if callers.permissions is None:
        return True, f"{', '.join(said)}; no policy"
    rules = len(Permissions(callers.permissions).policy.rules)
    second = "with" if callers.permissions.second_factor else "no administrative calls: without"
    return True, f"{', '.join(said)}; {rules} rules in {callers.permissions.policy}; {second} a second factor"


def _budgets(configuration: Configuration | None) -> tuple[bool, str]:
    budgets: BudgetSettings | None = None if configuration is None else configuration.guards.budgets
    if budgets is None:
        return False, "any number of queries" + (
            " (budgets = false)" if configuration and configuration.declined else ""
        )
    _require_writable("budgets", budgets.path.parent)
    if budgets.path.exists():
        Ledger(budgets.path).close()
    named = [f"{name}: {_limits(each)}" for name, each in sorted(budgets.models.items())]
    return True, "; ".join([f"records of a caller for a model: {_limits(budgets.allowance)}", *named])


def _limits(allowance: Allowance) -> str:
    said = [(allowance.total, "in all"), (allowance.daily, "a day")]
    return " and ".join(f"{records} {word}" for records, word in said if records is not None) or "no limit"


def _audit(audit: AuditSettings | None) -> tuple[bool, str]:
    if audit is None:
        return False, "nothing is written down"
    if audit.directory.exists():
        _require_writable("audit log", audit.directory)
    if audit.key_file.exists():
        Signer.of(audit.key_file)
        return True, f"{audit.directory}, signed by {audit.key_file}"
    if audit.key is not None:
        _require_writable("audit key", audit.key_file.parent)
    return True, f"{audit.directory}; {audit.key_file} is made at the first start"


def _require_writable(what: str, directory: Path) -> None:
    if not (directory.is_dir() and os.access(directory, os.W_OK | os.X_OK)):
        raise SettingsError(f"{what}: {directory} is not a directory that this user can write to")
