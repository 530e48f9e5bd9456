"""The gate of a server that is not a demo: who calls, what they may, how often, and what is written down; each part optional.

    authenticate   who is calling, and whether any rule allows the method; before the request is read
    admit          the rule for the model, a one-time code, whether the log takes entries, then the budget
    finish         the entry in the log, then the answer is stored, then it is sent

A call that fails is written down with its error's reason, one that nothing vouches for as `unauthenticated`; its records are
given back unless an answer was sent. Without callers, whoever TLS has verified is told apart and everybody may call.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field

from secure_infer.errors import PermissionDenied, SecureInferError, SettingsError
from secure_infer_server.admin.books import Books
from secure_infer_server.admission import UNAUTHENTICATED, Call, Records, is_loggable
from secure_infer_server.audit.log import AuditLog
from secure_infer_server.audit.settings import AuditSettings
from secure_infer_server.budgets import Budgets, BudgetSettings
from secure_infer_server.callers import unmet
from secure_infer_server.callers.authenticator import Authenticator, AuthenticatorSettings
from secure_infer_server.callers.caller import Caller
from secure_infer_server.callers.permissions import Permissions, PermissionSettings
from secure_infer_server.callers.policy import CLIENT
from secure_infer_server.callers.watched import Watcher
from secure_infer_server.gate import NOTHING, Ask, Context
from secure_infer_server.mpc import roles

log = logging.getLogger(__name__)

LONGEST_NAME = 64  # of a model that is not served, as rules see it


@dataclass(frozen=True)
class CallerSettings:
    """permissions: None: every client that is told may call everything but administrative methods."""

    authenticator: AuthenticatorSettings = field(default_factory=AuthenticatorSettings)
    permissions: PermissionSettings | None = None


@dataclass(frozen=True)
class GuardSettings:
    """None: that part is off."""

    callers: CallerSettings | None = None
    budgets: BudgetSettings | None = None
    audit: AuditSettings | None = None

    @property
    def any(self) -> bool:
        return (self.callers, self.budgets, self.audit) != (None, None, None)

    def allows_apart(self, model: str) -> bool:
        """Whether the budgets name that model."""
        return self.budgets is not None and model in self.budgets.models

    def require_fit(self, models: Iterable[str]) -> None:
        """Raise SettingsError when those, which are served, do not fit budgets or log."""
        served = sorted(models)
        # A budget under a wrong name would leave the model without one.
        unknown = sorted(set(() if self.budgets is None else self.budgets.models) - set(served))
        if unknown:
            raise SettingsError(f"budgets: expected models among {', '.join(served)}, got {unknown[0]!r}")
        for name in () if self.audit is None else served:
            if not is_loggable(name):
                raise SettingsError(
                    f"audit: model {name!r}: expected a name of letters, digits and ._-; rename its file"
                )


_caller: ContextVar[tuple[Context, Caller] | None] = ContextVar("caller", default=None)
"""Of the call under way in this task or thread, with its context, so that `admit` never takes another call's."""


class GuardedGate:
    """A `Gate`. Safe to share between threads and tasks."""

    def __init__(self, settings: GuardSettings) -> None:
        """Opens the ledger and the log; raises SettingsError for files that cannot be used."""
        self._settings = settings
        self._authenticator: Authenticator | None = None
        self._permissions: Permissions | None = None
        self._served: Mapping[str, Collection[bytes]] = {}
        self._ever: frozenset[str] = frozenset()
        watched = []
        if settings.callers is not None:
            self._authenticator = Authenticator(settings.callers.authenticator)
            watched += self._authenticator.watched
            if settings.callers.permissions is not None:
                self._permissions = Permissions(settings.callers.permissions)
                watched += self._permissions.watched
        self._watcher = Watcher(watched, changed=self._tell_unmet)
        self._unmet: frozenset[str] = frozenset()
        with ExitStack() as opened:
            self._budgets = None if settings.budgets is None else Budgets(settings.budgets)
            if self._budgets is not None:
                opened.callback(self._budgets.close)
            self._audit = None if settings.audit is None else AuditLog(settings.audit)
            opened.pop_all()
        self._records = Records(self._audit, self._served)

    def serve(self, models: Mapping[str, Collection[bytes]]) -> None:
        """Raises SettingsError for models that the budgets name and that were never among them, and for names that do not fit
        the log. For one thread at a time; calls may be under way."""
        ever = self._ever | models.keys()
        self._settings.require_fit(ever)
        self._ever = ever
        if self._budgets is not None:
            # A copy of a model under another name has its digest: the name that has an allowance of its own comes last.
            for name in sorted(models, key=self._settings.allows_apart):
                for digest in models[name]:
                    self._budgets.serve(name, digest)
        # Last: what is charged from now on has its allowance.
        self._records = Records(self._audit, frozenset(models))
        self._served = {name: frozenset(digests) for name, digests in models.items()}
        self._tell_unmet()

    def _tell_unmet(self) -> None:
        """Log which rules fit nothing that there is, those that did not before."""
        permissions = self._permissions
        if permissions is not None:
            found = frozenset(unmet.warnings(permissions.policy, self._served, permissions.enrolled))
            for text in sorted(found - self._unmet):
                log.warning("%s", text)
            self._unmet = found

    @property
    def takes_tokens(self) -> bool:
        callers = self._settings.callers
        return callers is not None and bool(callers.authenticator.issuers)

    @property
    def admits(self) -> bool:
        return self._audit is None or not self._audit.failing

    def audit_lag(self) -> tuple[int, float]:
        """Entries of the audit log that are not durable yet, and seconds since the oldest was taken; none without a log."""
        return (0, 0.0) if self._audit is None else (self._audit.waiting, self._audit.lag)

    @property
    def books(self) -> Books | None:
        """What administrative calls look into; None without a policy and a second factor: then there are no such calls."""
        permissions = self._permissions
        if permissions is None or not permissions.has_second_factor:
            return None
        return Books(lambda: permissions.policy, self._budgets, self._audit, lambda: self._served)

    def start(self) -> None:
        self._watcher.start()

    def close(self) -> None:
        self._watcher.close()
        if self._budgets is not None:
            self._budgets.close()
        if self._audit is not None:
            self._audit.close()

    # Calls.

    def authenticate(self, context: Context, method: str) -> str:
        return self._identify(context, method).identity

    def admit(self, context: Context, method: str, model: str | None = None, ask: Ask = NOTHING) -> Call:
        call = self._call(context, method, model, ask)
        try:
            self._permit(context, call, method, model)
            if self._budgets is not None and self._is_charged(model, ask):
                call.charge = self._budgets.charge(*call.charged(self._budgets))
        except BaseException as error:
            call.fail(error)
            raise
        return call

    async def aadmit(self, context: Context, method: str, model: str | None = None, ask: Ask = NOTHING) -> Call:
        call = self._call(context, method, model, ask)
        try:
            self._permit(context, call, method, model)
            if self._budgets is not None and self._is_charged(model, ask):
                call.charge = await self._budgets.acharge(*call.charged(self._budgets))
        except BaseException as error:
            call.fail(error)
            raise
        return call

    def _call(self, context: Context, method: str, model: str | None, ask: Ask) -> Call:
        caller = self._identify(context, method)
        return Call(self._records, caller.identity, method, model, ask, budgeted=self._budgets is not None)

    def _permit(self, context: Context, call: Call, method: str, model: str | None) -> None:
        if self._permissions is not None:
            # What is not served is cut: rules remember what they decided, by name.
            name = model if model is None or model in self._served else model[:LONGEST_NAME]
            self._permissions.require(self._identify(context, method), method, name)
            call.second_factor = self._permissions.policy.is_administrative(method)
        if self._audit is not None:
            self._audit.check()

    def _is_charged(self, model: str | None, ask: Ask) -> bool:
        """False for what is refused before it is evaluated: no records, a model not served, or not in that version. So
        nobody makes rows in the ledger for digests of their own."""
        return ask.records > 0 and model is not None and ask.model_digest in self._served.get(model, ())

    def _identify(self, context: Context, method: str) -> Caller:
        known = _caller.get()
        if known is not None and known[0] is context:
            return known[1]
        try:
            caller = self._told(context)
        except SecureInferError as error:
            self._records.refused(UNAUTHENTICATED, method, error)
            raise
        try:
            self._require_some(caller, method)
        except SecureInferError as error:
            self._records.refused(caller.identity, method, error)
            raise
        _caller.set((context, caller))
        return caller

    def _told(self, context: Context) -> Caller:
        if self._authenticator is None:
            return Caller(roles.identity(context), CLIENT)
        return self._authenticator.caller(context)

    def _require_some(self, caller: Caller, method: str) -> None:
        if self._permissions is None:
            # Where no policy tells parties and dealers from clients, their certificates do.
            if caller.role != CLIENT:
                raise PermissionDenied(f"certificate: this call is for clients, its role is {caller.role or 'none'}")
            return
        policy = self._permissions.policy
        if not (policy.allows_some(caller, method) or policy.allows_some(caller, f"{method}:others")):
            self._permissions.require_some(caller, method)
