"""The configuration file of `serve --config FILE`, in TOML; a path in it is relative to the file.

    models = "models"                  # whatever `serve` has a flag for, by the flag's name; flags on the line come last
    listen = "0.0.0.0:8443"
    tls_cert = "server.pem"
    tls_key = "server.key"
    client_ca = "ca.pem"
    smudging = 20

    [policies.icd]                     # of one model: privacy, smudging, batch_smudging, error
    smudging = 24

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

A key that is not understood is an error: a misspelt one would otherwise be a protection that is not there.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from secure_infer.address import is_loopback
from secure_infer.errors import SettingsError
from secure_infer_server.audit.settings import AuditSettings
from secure_infer_server.budgets import Allowance, BudgetSettings
from secure_infer_server.callers.authenticator import AuthenticatorSettings
from secure_infer_server.callers.permissions import PermissionSettings
from secure_infer_server.callers.second_factor import SecondFactorSettings
from secure_infer_server.callers.tokens import Issuer
from secure_infer_server.guarded import CallerSettings, GuardSettings
from secure_infer_server.tables import Table, Wrong

VARIABLE = "SECURE_INFER_CONFIG"
SECTIONS = ("policies", "callers", "budgets", "audit")
SERVER_POLICY: Mapping[str, type] = {"privacy": str, "smudging": int, "batch_smudging": int, "error": float}
_NOT_IN_FILES = ("help", "config", "check_config", "json")


@dataclass(frozen=True)
class Configuration:
    """A file as read. arguments: what it says in flags. guards: the other tables. declined: `budgets = false`."""

    path: Path
    arguments: list[str] = field(default_factory=list)
    guards: GuardSettings = field(default_factory=GuardSettings)
    declined: bool = False

    @classmethod
    def read(
        cls, path: Path, parser: argparse.ArgumentParser, policy: Mapping[str, type] = SERVER_POLICY
    ) -> Configuration:
        """Raises SettingsError, which names the file and what in it is wrong. parser: whose flags the file may hold. policy:
        those of one model, too, with the types of their values."""
        try:
            data = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise SettingsError(f"configuration: {path} cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise SettingsError(f"configuration: {path} is not TOML: {error}") from None
        flags = {action.dest: action for action in parser._actions if action.dest not in _NOT_IN_FILES}
        try:
            table = Table("the file", data, path.resolve().parent)
            table.only(*flags, *SECTIONS)
            arguments = [text for name in data if name in flags for text in _flag(flags[name], table, policy)]
            declined = data.get("budgets") is False
            guards = GuardSettings(
                _callers(table.table("callers")),
                None if declined else _budgets(table.table("budgets")),
                _audit(table.table("audit")),
            )
            return cls(path, arguments + _policies(table, policy), guards, declined)
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


def _flag(action: argparse.Action, table: Table, policy: Mapping[str, type]) -> list[str]:
    """A key as it would be on the command line."""
    name, flag = action.dest, action.option_strings[0]
    if action.nargs == 0:
        return [flag] if table.value(name, bool) else []
    kind = policy.get(name, action.type if action.type in (Path, int, float) else str)
    return [f"{flag}={table.value(name, kind)}"]


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
    permissions = None
    if "policy" in table.entries:
        permissions = table.build(
            PermissionSettings,
            without=("issuers",),
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
) -> tuple[argparse.Namespace, Configuration | None]:
    """What a command line says, after the file that its `--config` or the environment names; the file, too. Raises
    SettingsError."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    named = first.parse_known_args(arguments)[0].config
    path = named or environment.get(VARIABLE)
    found = Configuration.read(Path(path), parser, policy) if path else None
    chosen = parser.parse_args([*([] if found is None else found.arguments), *arguments])
    if chosen.config != named:  # abbreviated: it would have been read by nobody
        parser.error("--config: write it out in full")
    return chosen, found
