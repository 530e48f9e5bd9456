"""What `--check-config` says of the parts that servers and parties share: TLS, callers, budgets, audit.

Everything is read and nothing is written, so that a process may be running with the same files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from secure_infer.address import is_loopback
from secure_infer.errors import SettingsError
from secure_infer_server import modes
from secure_infer_server.audit import files as audit_files
from secure_infer_server.audit import recovery
from secure_infer_server.audit.settings import AuditSettings
from secure_infer_server.audit.signing import Signer
from secure_infer_server.budgets import Allowance, ledger
from secure_infer_server.callers import unmet
from secure_infer_server.callers.authenticator import Authenticator
from secure_infer_server.callers.permissions import Permissions
from secure_infer_server.config import Configuration
from secure_infer_server.guarded import CallerSettings, GuardSettings
from secure_infer_server.models.settings import ReloadSettings
from secure_infer_server.models.signatures import Signers
from secure_infer_server.report import Part, Report, metrics_warnings
from secure_infer_server.tls import Tls


def exposure(host: str, tls: Tls | None, guards: GuardSettings) -> Iterator[str]:
    """Warnings of what holds together, and yet is seldom meant where others can connect."""
    remote, callers, audit = not is_loopback(host), guards.callers, guards.audit
    if tls is None:
        yield "callers are anonymous: without TLS nothing tells them apart"
    elif callers is None and tls.client_ca is None:
        yield "callers are anonymous: give client_ca, or [callers] with issuers of tokens"
    if remote and (callers is None or callers.permissions is None):
        yield "no policy: whoever can connect may ask any model; name the rules' file in [callers]"
    if remote and guards.budgets is None:
        yield "budgets are off: about as many answers as a linear head has features give it away"
    if remote and audit is None:
        yield "the audit log is off: nothing says afterwards who asked what"
    if audit is not None and _real(audit.key_file).is_relative_to(_real(audit.directory)):
        yield f"the audit key {audit.key_file} is in the log's directory: who can rewrite the log can sign it; keep it elsewhere"


def files(configuration: Configuration | None, models: Path, reload: ReloadSettings) -> Iterator[str]:
    """Warnings of files that others could read or change."""
    trusted: list[Path | None] = [models, reload.signers, reload.serials]
    if configuration is not None:
        guards = configuration.guards
        trusted += [configuration.path, configuration.keys.directory]
        if guards.callers is not None:
            trusted += [issuer.keys for issuer in guards.callers.authenticator.issuers]
            if guards.callers.permissions is not None:
                trusted.append(guards.callers.permissions.policy)
        if guards.budgets is not None:
            trusted += [guards.budgets.path.parent, guards.budgets.path]
        if guards.audit is not None:
            trusted.append(guards.audit.directory)
    yield from modes.warnings([] if configuration is None else [configuration.keys.redis], trusted)


def guarding(
    configuration: Configuration | None, tls: Tls | None, models: Sequence[str], report: Report
) -> dict[str, Callable[[], Part]]:
    """The parts that every gate is made of. models: names of those served, known when these are called."""
    guards = GuardSettings() if configuration is None else configuration.guards
    return {
        "callers": lambda: _callers(guards.callers, tls, models, report),
        "budgets": lambda: _budgets(guards, declined=configuration is not None and configuration.declined),
        "audit": lambda: _audit(guards.audit),
    }


def signatures_part(reload: ReloadSettings) -> Part:
    if reload.signers is None:
        return False, "any model file in the directory is served"
    Signers.of(reload.signers)
    if reload.serials is None:
        return (
            True,
            f"models that a key of {reload.signers} signed; of older ones nothing is remembered across restarts",
        )
    require_writable("--model-serials", reload.serials.parent)
    return True, f"models that a key of {reload.signers} signed, and none older than {reload.serials} remembers"


def watching(host: str, signers: Path | None, metrics: str | None) -> Iterator[str]:
    """Warnings of models that nobody vouches for, and of figures that nobody can see, or everybody."""
    if not is_loopback(host) and signers is None:
        yield "models are not signed: whoever can write to their directory decides what is served; give model_signers"
    yield from metrics_warnings(host, metrics)


def _callers(callers: CallerSettings | None, tls: Tls | None, models: Sequence[str], report: Report) -> Part:
    certified = tls is not None and tls.client_ca is not None
    if callers is None:
        return False, "told apart by certificates; everybody may call" if certified else "everybody may call"
    Authenticator(callers.authenticator)
    said = ["certificates"] if certified else []
    said += [f"tokens of {issuer.name}" for issuer in callers.authenticator.issuers]
    if callers.permissions is None:
        return True, f"{', '.join(said)}; no policy"
    permissions = Permissions(callers.permissions)
    report.warnings += unmet.warnings(permissions.policy, models, permissions.enrolled)
    rules = len(permissions.policy.rules)
    if not rules:
        report.warnings.append(f"policy: {callers.permissions.policy} holds no rule: nobody may call anything")
    second = "with" if callers.permissions.second_factor else "no administrative calls: without"
    return True, f"{', '.join(said)}; {rules} rules in {callers.permissions.policy}; {second} a second factor"


def _budgets(guards: GuardSettings, *, declined: bool) -> Part:
    budgets = guards.budgets
    if budgets is None:
        return False, "any number of queries" + (" (budgets = false)" if declined else "")
    for path in (budgets.path, budgets.answer_file):
        if path is not None:
            require_writable("budgets", path.parent)
    if budgets.path.exists():
        ledger.require_sound(budgets.path)
    named = [f"{name}: {_limits(each)}" for name, each in sorted(budgets.models.items())]
    new = [] if budgets.path.exists() else [f"{budgets.path} is made at the start: everybody begins at nothing"]
    return True, "; ".join([f"records of a caller for a model: {_limits(budgets.allowance)}", *named, *new])


def _limits(allowance: Allowance) -> str:
    said = [(allowance.total, "in all"), (allowance.daily, "a day")]
    return " and ".join(f"{records} {word}" for records, word in said if records is not None) or "no limit"


def _audit(audit: AuditSettings | None) -> Part:
    if audit is None:
        return False, "nothing is written down"
    _require_no_dead_link(audit.key_file)
    require_writable("audit log", made_in(audit.directory))
    lock = audit.directory / audit_files.LOCK
    if lock.exists() and not os.access(lock, os.W_OK):
        raise SettingsError(f"audit log: {lock} is not this user's; was the log written by another?")
    if audit.directory.exists():
        recovery.require_sound(audit.directory)
        recovery.require_key(audit.key_file, audit.directory)
    if audit.key_file.exists():
        Signer.of(audit.key_file)
        return True, f"{audit.directory}, signed by {audit.key_file}"
    if audit.key is not None:
        require_writable("audit key", audit.key_file.parent)
    return True, f"{audit.directory}; {audit.key_file} is made at the first start"


def _real(path: Path) -> Path:
    """Without links; a loop of them is left as it is, for whoever opens it to say."""
    return Path(os.path.realpath(path))


def made_in(directory: Path) -> Path:
    """It, or where it is to be made at the start. Raises SettingsError for a link that leads nowhere."""
    _require_no_dead_link(directory)
    return next(each for each in (directory, *directory.absolute().parents) if each.exists())


def _require_no_dead_link(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise SettingsError(f"{path} is a link that leads nowhere")


def require_writable(what: str, directory: Path) -> None:
    """Raises SettingsError."""
    if not (directory.is_dir() and os.access(directory, os.W_OK | os.X_OK)):
        raise SettingsError(f"{what}: {directory} is not a directory that this user can write to")
