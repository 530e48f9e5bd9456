"""The configuration file of `serve`, `party` and `dealer`, in TOML; a path in it is relative to the file.

    models = "models"                  # whatever the command has a flag for, by its name with _ for -
    listen = "0.0.0.0:8443"
    tls_cert = "server.pem"
    tls_key = "server.key"
    client_ca = "ca.pem"
    smudging = 20

    [policies.icd]                     # of one model: privacy, smudging, batch_smudging, error
    smudging = 24

    [keys]                             # of `serve`: where clients' keys are kept, and how many (`keys.settings`)
    directory = "/var/lib/secure-infer/keys"
    expiry = 2592000

    [callers]                          # who may call (`callers.policy` says what the rules look like)
    policy = "policy.toml"
    second_factor = { secrets = "otp.toml" }

    [[callers.issuers]]                # whose tokens are taken (`callers.tokens.Issuer`)
    name = "https://login.example"
    audience = "secure-infer"
    keys = "login.json"

    [budgets]                          # `budgets.settings`; instead of it `budgets = false`, above all tables
    path = "/var/lib/secure-infer/budgets.sqlite"
    daily = 2000
    models.icd = { total = 500 }

    [audit]                            # `audit.settings`
    directory = "/var/log/secure-infer"
    key = "/etc/secure-infer/audit.key"

A key that is not understood is an error: a misspelt one would otherwise be a protection that is not there. Which tables there
are is the command's: a dealer has none. Flags can also be set by the environment (`flags`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from secure_infer.address import is_loopback
from secure_infer.errors import SettingsError
from secure_infer_server import flags
from secure_infer_server.audit.settings import AuditSettings
from secure_infer_server.budgets import Allowance, BudgetSettings
from secure_infer_server.callers.authenticator import AuthenticatorSettings
from secure_infer_server.callers.permissions import PermissionSettings
from secure_infer_server.callers.policy import ADMINISTRATIVE
from secure_infer_server.callers.second_factor import SecondFactorSettings
from secure_infer_server.callers.tokens import Issuer
from secure_infer_server.guarded import CallerSettings, GuardSettings
from secure_infer_server.keys.settings import KeySettings
from secure_infer_server.tables import Table, Wrong

VARIABLE = flags.CONFIG
SERVER_SECTIONS = ("policies", "keys", "callers", "budgets", "audit")
PARTY_SECTIONS = ("policies", "callers", "budgets", "audit")
SERVER_POLICY: Mapping[str, type] = {"privacy": str, "smudging": int, "batch_smudging": int, "error": float}
_OF_TABLES = ("keys_directory", "keys_redis")
"""Destinations of flags that a table sets."""


@dataclass(frozen=True)
class Configuration:
    """A file as read. arguments: what it says in flags. keys, guards: the other tables. declined: `budgets = false`."""

    path: Path
    arguments: list[str] = field(default_factory=list)
    keys: KeySettings = field(default_factory=KeySettings)
    guards: GuardSettings = field(default_factory=GuardSettings)
    declined: bool = False

    @classmethod
    def read(
        cls,
        path: Path,
        parser: argparse.ArgumentParser,
        policy: Mapping[str, type] = SERVER_POLICY,
        sections: Sequence[str] = SERVER_SECTIONS,
    ) -> Configuration:
        """Raises SettingsError, which names the file and what in it is wrong. parser: whose flags the file may hold. policy:
        those of one model, too, with the types of their values. sections: the tables that it may hold."""
        table = flags.read_file(path)
        try:
            arguments = flags.of_file(table, parser, policy, tuple(sections), _OF_TABLES)
            declined = table.entries.get("budgets") is False
            guards = GuardSettings(
                _callers(table.table("callers")),
                None if declined else _budgets(table.table("budgets")),
                _audit(table.table("audit")),
            )
            keys = table.table("keys")
            kept = KeySettings() if keys is None else keys.build(KeySettings)
            return cls(path, arguments + _policies(table, policy), kept, guards, declined)
        except Wrong as wrong:
            raise SettingsError(f"configuration: {path}: {wrong}") from None
        except SettingsError as error:
            raise SettingsError(f"configuration: {path}: {error.message}") from None

    def require_decided(self, host: str) -> None:
        """Raise SettingsError where budgets are off by omission, on an address that is not loopback."""
        if self.guards.budgets is None and not self.declined and not is_loopback(host):
            raise SettingsError(
                "budgets: off on an address that is not loopback; say how many records a caller may ask in [budgets], or "
                "write `budgets = false` above all tables to serve without"
            )


def _policies(table: Table, kinds: Mapping[str, type]) -> list[str]:
    found = []
    models = table.table("policies")
    if models is None:
        return []
    for model in models.entries:
        policy = models.inner(model)
        policy.only(*kinds)
        for name in policy.entries:
            found.append(f"--{name.replace('_', '-')}={model}={policy.value(name, kinds[name])}")
    return found


def _callers(table: Table | None) -> CallerSettings | None:
    if table is None:
        return None
    table.only("policy", "administrative", "second_factor", "issuers")
    issuers = tuple(issuer.build(Issuer) for issuer in table.tables("issuers"))
    second = table.table("second_factor")
    permissions, further = None, "administrative" in table.entries
    if "policy" in table.entries:
        permissions = table.build(
            PermissionSettings,
            without=("issuers",),
            # Besides those that always need it: a list that replaced them would open administrative calls.
            administrative=(*ADMINISTRATIVE, *table.value("administrative", tuple)) if further else ADMINISTRATIVE,
            second_factor=None if second is None else second.build(SecondFactorSettings),
        )
    elif table.entries.keys() - {"issuers"}:
        raise Wrong("[callers]: administrative and second_factor need a policy, which says whom they are for")
    return CallerSettings(AuthenticatorSettings(issuers), permissions)


def _budgets(table: Table | None) -> BudgetSettings | None:
    if table is None:
        return None
    limits = ("total", "daily")
    models = table.table("models")
    named = {} if models is None else {name: models.inner(name).build(Allowance) for name in models.entries}
    table.only(*(name for name in BudgetSettings.__dataclass_fields__ if name != "allowance"), *limits)
    allowance = Allowance(**{name: table.value(name, int) for name in limits if name in table.entries})
    settings = table.build(BudgetSettings, without=limits, models=named, allowance=allowance)
    if allowance.unlimited and not any(not each.unlimited for each in named.values()):
        raise Wrong("[budgets]: expected total or daily, for all models or for some; `budgets = false` for none")
    return settings


def _audit(table: Table | None) -> AuditSettings | None:
    if table is None:
        return None
    # A server on an event loop refuses when the queue is full: it cannot wait for one call without keeping all.
    names = [name for name in AuditSettings.__dataclass_fields__ if name not in ("when_full", "wait")]
    table.only(*names)
    return table.build(AuditSettings)


def options(
    parser: argparse.ArgumentParser,
    arguments: list[str],
    environment: Mapping[str, str],
    policy: Mapping[str, type] = SERVER_POLICY,
    sections: Sequence[str] = SERVER_SECTIONS,
) -> tuple[argparse.Namespace, Configuration | None]:
    """As `flags.options`, with the tables of the file."""

    def read(path: Path) -> tuple[list[str], Configuration]:
        found = Configuration.read(path, parser, policy, sections)
        return found.arguments, found

    return flags.options(parser, arguments, environment, read)
