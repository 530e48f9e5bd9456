"""Who may call what: rules from a file, and nothing without a rule.

    deny = ["cn:lost-laptop", "sha256:6f0c*"]      # whatever else holds: identities, or certificates' fingerprints

    [roles]                                        # who is what; these three roles and no others
    client = ["cn:ward-*", "jwt:https://login.example:*"]
    operator = ["cn:it-anna"]
    auditor = ["cn:revision"]

    [[allow]]
    roles = ["client"]                             # or identities = ["cn:ward-7"]
    methods = ["ModelService/*", "KeyService/*"]

    [[allow]]
    roles = ["client"]
    methods = ["InferenceService/Infer"]
    models = ["icd-*"]                             # calls that name such a model; without it, any call

    [administrative]
    methods = ["ModelService/ListModels"]          # besides ADMINISTRATIVE

Rules may also name the roles of certificates "party:0", "party:1" and "dealer"; their holders have no other, so that a party
is never a client by accident. Administrative methods are for operators and auditors: no rule for anybody else reaches them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from secure_infer.errors import SettingsError
from secure_infer_server.callers.caller import Caller
from secure_infer_server.callers.patterns import any_matches
from secure_infer_server.mpc.roles import ANONYMOUS, Role

CLIENT, OPERATOR, AUDITOR = "client", "operator", "auditor"
GRANTED = (CLIENT, OPERATOR, AUDITOR)
"""Roles that the file grants."""

CERTIFIED = (Role.PARTY_0.short, Role.PARTY_1.short, Role.DEALER.short)
"""Roles that certificates name, besides the client's, which is a matter of the file."""

ADMINISTRATIVE = ("*:others", "AdminService/*", "AuditService/*")
"""Methods that need a second factor. A call that reaches for what is another caller's, like its keys, is to be named
METHOD:others where it is admitted."""

PACKAGE = "secure_infer.v1."
KINDS = ("cn:", "jwt:", "sha256:")
"""What identities begin with: a certificate's common name, a token's issuer and subject, a certificate's fingerprint."""
HEALTH = "grpc.health.v1.Health/"


def is_identity(text: str) -> bool:
    """Whether a caller could be called so."""
    return text.startswith(KINDS) or text == ANONYMOUS


@lru_cache(maxsize=256)
def canonical(method: str) -> str:
    """ "KeyService/UploadKeys" of "/secure_infer.v1.KeyService/UploadKeys"; other packages keep their name."""
    return method.removeprefix("/").removeprefix(PACKAGE)


@dataclass(frozen=True)
class Rule:
    """Callers with one of `roles` or `identities` may call `methods`; `models` None: whether or not a model is named."""

    roles: tuple[str, ...]
    identities: tuple[str, ...]
    methods: tuple[str, ...]
    models: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Policy:
    """A checked policy. The empty one allows nothing."""

    rules: tuple[Rule, ...] = ()
    granted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    denied: tuple[str, ...] = ()
    administrative: tuple[str, ...] = ADMINISTRATIVE

    def __post_init__(self) -> None:
        # Answers are remembered for this policy alone; the next one read from the file starts anew.
        object.__setattr__(self, "_decide", lru_cache(maxsize=4096)(self._decision))
        object.__setattr__(self, "_guards", lru_cache(maxsize=256)(self._is_guarded))

    def roles_of(self, caller: Caller) -> frozenset[str]:
        """The roles in force: of a certificate that names one, that one; of anybody else, those granted."""
        if caller.role is None or self._is_denied(caller.identity, caller.fingerprint):
            return frozenset()
        return self._roles(caller.identity, caller.role)

    def is_administrative(self, method: str) -> bool:
        guards: Any = self._guards  # type: ignore[attr-defined]
        return bool(guards(method))

    def _is_guarded(self, method: str) -> bool:
        return any_matches(self.administrative, canonical(method))

    def allows(self, caller: Caller, method: str, model: str | None = None) -> bool:
        """Whether a rule lets the caller do that. Health is for everybody."""
        name = canonical(method)
        if name.startswith(HEALTH):
            return True
        return self._remembered(caller, name, model, False)

    def allows_some(self, caller: Caller, method: str) -> bool:
        """Whether it does for some model, or none: what can be told before a request is read."""
        name = canonical(method)
        return name.startswith(HEALTH) or self._remembered(caller, name, None, True)

    def _remembered(self, caller: Caller, method: str, model: str | None, some: bool) -> bool:
        decide: Any = self._decide  # type: ignore[attr-defined]
        return bool(decide(caller.identity, caller.role, caller.fingerprint, method, model, some))

    def _decision(
        self, identity: str, role: str | None, fingerprint: str, method: str, model: str | None, some: bool
    ) -> bool:
        if role is None or self._is_denied(identity, fingerprint):
            return False
        roles = self._roles(identity, role)
        if self.is_administrative(method):
            roles &= {OPERATOR, AUDITOR}
            identity = ""  # a rule for identities is a rule for callers of no such role
        return any(
            (roles.intersection(rule.roles) or (identity and any_matches(rule.identities, identity)))
            and any_matches(rule.methods, method)
            and (some or rule.models is None or (model is not None and any_matches(rule.models, model)))
            for rule in self.rules
        )

    def _is_denied(self, identity: str, fingerprint: str) -> bool:
        return any_matches(self.denied, identity) or bool(fingerprint and any_matches(self.denied, fingerprint))

    def _roles(self, identity: str, role: str) -> frozenset[str]:
        if role != CLIENT:
            return frozenset({role})
        return frozenset(name for name, patterns in self.granted.items() if any_matches(patterns, identity))


def read_policy(path: Path, administrative: tuple[str, ...] = ADMINISTRATIVE) -> Policy:
    """The policy in a file; raises SettingsError for one that cannot be read, or holds anything not understood: a
    misspelt word would otherwise be a rule that does not do what it seems to."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"policy: {path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"policy: {path} is not TOML: {error}") from None
    try:
        return _policy(data, administrative)
    except _Wrong as wrong:
        raise SettingsError(f"policy: {path}: {wrong}") from None


class _Wrong(Exception):
    pass


def _policy(data: dict[str, Any], administrative: tuple[str, ...]) -> Policy:
    _only(data, "the file", "deny", "roles", "allow", "administrative")
    roles, further = _table(data, "roles"), _table(data, "administrative")
    _only(roles, "[roles]", *GRANTED)
    _only(further, "[administrative]", "methods")
    rules = data.get("allow", [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise _Wrong("allow: expected tables [[allow]]")
    return Policy(
        tuple(_rule(rule, f"[[allow]] number {number}") for number, rule in enumerate(rules, 1)),
        {name: _identities(roles, name, "[roles]") for name in roles},
        _identities(data, "deny", "the file"),
        administrative + _patterns(further, "methods", "[administrative]"),
    )


def _rule(rule: dict[str, Any], where: str) -> Rule:
    _only(rule, where, "roles", "identities", "methods", "models")
    roles, identities = _patterns(rule, "roles", where), _identities(rule, "identities", where)
    unknown = set(roles) - {*GRANTED, *CERTIFIED}
    if unknown:
        raise _Wrong(
            f"{where}: expected roles among {', '.join(GRANTED + CERTIFIED)}, got {', '.join(sorted(unknown))}"
        )
    methods = tuple(canonical(method) for method in _patterns(rule, "methods", where))
    if not methods or not (roles or identities):
        raise _Wrong(f"{where}: expected methods, and roles or identities")
    return Rule(roles, identities, methods, _patterns(rule, "models", where) if "models" in rule else None)


def _only(table: dict[str, Any], where: str, *names: str) -> None:
    unknown = sorted(set(table) - set(names))
    if unknown:
        raise _Wrong(f"{where}: expected {', '.join(names)}, got {', '.join(unknown)}")


def _table(data: dict[str, Any], name: str) -> dict[str, Any]:
    found = data.get(name, {})
    if not isinstance(found, dict):
        raise _Wrong(f"{name}: expected a table [{name}]")
    return found


def _patterns(table: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    found = table.get(name, [])
    if not isinstance(found, list) or not all(isinstance(text, str) and text for text in found):
        raise _Wrong(f"{where}: {name}: expected a list of strings that are not empty")
    return tuple(found)


def _identities(table: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    """Patterns that some identity or fingerprint can match: "ward-7" for "cn:ward-7" would deny nobody, and say nothing."""
    found = tuple(_fingerprint(pattern) for pattern in _patterns(table, name, where))
    for pattern in found:
        if not pattern.startswith("*") and not is_identity(pattern):
            raise _Wrong(
                f"{where}: {name}: expected identities that begin with {', '.join(KINDS)} or *, or {ANONYMOUS!r}; "
                f"got {pattern!r}"
            )
        if pattern != pattern.strip() or pattern.partition(":")[2][:1] == " ":
            raise _Wrong(f"{where}: {name}: expected no blanks around a name, got {pattern!r}")
        if pattern.startswith("sha256:") and "*" not in pattern and len(pattern) != len("sha256:") + 64:
            raise _Wrong(
                f"{where}: {name}: expected 64 digits of a fingerprint, or * after some of them, got {pattern!r}"
            )
    return found


def _fingerprint(pattern: str) -> str:
    """A fingerprint as it is compared, of one as other tools print it: `sha256:7F:E7:...`."""
    kind, _, digits = pattern.partition(":")
    return f"{kind.lower()}:{digits.replace(':', '').lower()}" if kind.lower() == "sha256" else pattern
