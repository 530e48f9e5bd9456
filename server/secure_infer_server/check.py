"""What a server's configuration switches on, leaves off, and gets wrong: `serve --check-config`, without serving.

Everything is loaded, and plans are made.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from secure_infer.address import is_loopback
from secure_infer.errors import SettingsError
from secure_infer_server import checks
from secure_infer_server.budgets import BudgetSettings
from secure_infer_server.config import Configuration
from secure_infer_server.guarded import GuardSettings
from secure_infer_server.keys import disk
from secure_infer_server.keys.settings import VARIABLE as KEYS_VARIABLE
from secure_infer_server.models.registry import Registry
from secure_infer_server.report import Part, Report, metrics_part, tls_part, tls_warnings
from secure_infer_server.report import unread as unread_warnings
from secure_infer_server.settings import Settings


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


def warnings(
    settings: Settings, configuration: Configuration | None, unread: Iterable[str] = (), metrics: str | None = None
) -> Iterator[str]:
    """What holds together, and yet is seldom meant. unread: environment variables that no flag reads. metrics: where they are
    served."""
    guards = GuardSettings() if configuration is None else configuration.guards
    yield from checks.exposure(settings.host, settings.tls, guards)
    yield from tls_warnings(settings.tls)
    yield from checks.watching(settings.host, settings.reload.signers, metrics)
    yield from checks.files(configuration, settings.models, settings.reload)
    if settings.plaintext_baseline:
        yield "the plaintext baseline is on: rows can be asked in the clear; for benchmarks, never for patients"
    if not is_loopback(settings.host) and not _keeps_keys(settings):
        yield "clients' keys are in memory: each client uploads again after a restart; give [keys] a directory or Redis"
    yield from unread_warnings(unread)


def check(
    settings: Settings, configuration: Configuration | None, unread: Iterable[str] = (), metrics: str | None = None
) -> Report:
    """Loads everything. See `warnings`."""
    report = Report(warnings=list(warnings(settings, configuration, unread, metrics)))
    served, told = list[str](), list[str]()
    report.look(
        {
            "models": lambda: _models(settings, configuration, report, served, told),
            "tls": lambda: tls_part(settings.tls),
            "keys": lambda: _keys(settings, configuration),
            **checks.guarding(configuration, settings.tls, served, report),
            "signatures": lambda: checks.signatures_part(settings.reload),
            "metrics": lambda: metrics_part(metrics),
        }
    )
    if told and "budgets" in report.on:
        report.on["budgets"] = "; ".join([report.on["budgets"], *told])
    if settings.open_inference:
        report.on["open_inference"] = "encrypted queries by KServe's and Triton's protocol"
    if settings.reflection:
        report.on["reflection"] = "callers are told which services there are"
    report.require(lambda: require_sound(settings, configuration))
    return report


def _models(
    settings: Settings, configuration: Configuration | None, report: Report, served: list[str], told: list[str]
) -> Part:
    """served: to hold the models' names. told: what their budgets mean for batches."""
    registry = Registry.load(settings)
    served += registry.names()
    report.warnings += [f"model {name} is not served: {why}" for name, why in registry.rejected.items()]
    for name in registry.without_plan():
        report.warnings.append(f"model {name} has no plan: {registry.get(name).no_plan_reason}")
    if configuration is not None:
        configuration.guards.require_fit(registry.names())
        told += _batches_refused(registry, configuration.guards.budgets)
    return True, f"{', '.join(registry.names())} at {settings.host}:{settings.port}"


def _batches_refused(registry: Registry, budgets: BudgetSettings | None) -> Iterator[str]:
    """Of models whose batches an allowance never takes, of any size."""
    for name in () if budgets is None else registry.names():
        least = min((batch.plan.records for batch in registry.get(name).batches.values()), default=0)
        if budgets is not None and least > budgets.of(name).largest:
            yield (
                f"no batches of {name}, of which the smallest counts as {least} records: cohorts are asked row by row"
            )


def _keeps_keys(settings: Settings) -> bool:
    return bool(settings.keys.directory or settings.keys.redis or os.environ.get(KEYS_VARIABLE))


def _keys(settings: Settings, configuration: Configuration | None) -> Part:
    keys, kept = settings.keys, _keeps_keys(settings)
    callers = None if configuration is None else configuration.guards.callers
    told_apart = bool((settings.tls and settings.tls.client_ca) or (callers and callers.authenticator.issuers))
    limits = keys.limits(settings.key_bytes, told_apart=told_apart, in_memory=not kept)
    if keys.directory is not None:
        checks.require_writable("keys", checks.made_in(keys.directory))
        disk.require_sound(keys.directory)
    if keys.redis is not None:
        keys.require_readable()
    share = f", {limits.owner_bytes >> 20} MiB and {limits.owner_keys} keys of one caller" if told_apart else ""
    text = f"{keys.place(os.environ)}: {limits.capacity >> 20} MiB in all{share}, {limits.expiry / 86400:g} days unused"
    return kept, text
