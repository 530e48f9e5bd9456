"""`secure-infer admin`: administrative calls to a running server or party, with a one-time code.

The server's policy has to allow them to the certificate or token given here, and its file of secrets to know that identity.
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from secure_infer.errors import SettingsError
from secure_infer.v1 import admin_pb2
from secure_infer_server.admin.caller import Administrator, Credentials
from secure_infer_server.callers.policy import KINDS, is_identity

LONGEST_CODE = 16
Line = list[str]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("secure-infer admin", description=__doc__)
    subjects = parser.add_subparsers(dest="subject", required=True)
    keys = _actions(subjects, "keys", "clients' public keys: who has some, how large, when last used")
    held = _action(keys, "list", "the least recently used first")
    held.add_argument("--owner", default="", metavar="IDENTITY", help="of one identity alone")
    held.add_argument("--limit", type=int, default=0, metavar="N", help="at most so many; default the server's most")
    drop = _action(keys, "delete", "clients upload again what they still need")
    drop.add_argument("--owner", required=True, metavar="IDENTITY", help="whose; '' of callers that are not told apart")
    which = drop.add_mutually_exclusive_group(required=True)
    which.add_argument("--key", action="append", default=[], metavar="HEX", help="first 8 or more digits; repeatable")
    which.add_argument("--all", action="store_true", help="all of that identity's, and its uploads under way")
    models = _actions(subjects, "models", "what is served, in which version")
    _action(models, "list", "names, digests, and why one is not ready")
    _action(models, "reload", "look at the directory now")
    audit = _actions(subjects, "audit", "where the audit log stands; `secure-infer audit verify` checks its files")
    _action(audit, "status", "its head, its last signed checkpoint, entries that wait")
    budgets = _actions(subjects, "budgets", "records that identities were debited")
    debits = _action(budgets, "list", "the largest totals first")
    debits.add_argument("--identity", default="", metavar="IDENTITY", help="of one identity alone")
    debits.add_argument("--limit", type=int, default=0, metavar="N", help="at most so many; default the server's most")
    reset = _action(budgets, "reset", "set one identity's back to nothing")
    reset.add_argument("--identity", required=True, metavar="IDENTITY", help="whose")
    reset.add_argument("--model", default="", metavar="NAME", help="for that served model alone")
    debit = _action(budgets, "debit", "count what a restored ledger does not know of, in the total")
    debit.add_argument("--identity", required=True, metavar="IDENTITY", help="whose")
    debit.add_argument("--model", required=True, metavar="NAME", help="a served model; each version that is answered")
    debit.add_argument("--today", action="store_true", help="of today's allowance, too, and not of the total alone")
    debit.add_argument("--records", type=int, required=True, metavar="N", help="as the audit log says them")
    return parser


def _actions(subjects: Any, name: str, summary: str) -> Any:
    return subjects.add_parser(name, help=summary, description=summary).add_subparsers(dest="action", required=True)


def _action(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    # No abbreviations: `--code 123456` is to be refused, and not taken for a file's name.
    parser: argparse.ArgumentParser = actions.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    parser.add_argument("--target", required=True, metavar="HOST:PORT", help="the server or party")
    parser.add_argument("--root-certificates", type=Path, metavar="F", help="CA that signed its certificate, PEM")
    parser.add_argument("--private-key", type=Path, metavar="F", help="the administrator's key, PEM")
    parser.add_argument("--certificate-chain", type=Path, metavar="F", help="the administrator's certificate, PEM")
    parser.add_argument("--token-file", type=Path, metavar="F", help="file with a bearer token, sent over TLS only")
    parser.add_argument(
        "--code-file", metavar="F", help="file with the one-time code, - for standard input; default: a prompt"
    )
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="deadline of the call (30)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(arguments: list[str]) -> int:
    """One call; the code is asked for last, so that it is fresh."""
    options = _parser().parse_args(arguments)
    request, show = _request(options)
    given = Credentials(
        options.root_certificates, options.private_key, options.certificate_chain, _token(options.token_file)
    )
    with Administrator(options.target, given, options.timeout) as administrator:
        answer = administrator.call(request, _code(options.code_file))
    said = json.dumps(_plain(answer)) if options.json else "\n".join(show(answer))
    sys.stdout.write(said + "\n")
    return 0


def _request(options: argparse.Namespace) -> tuple[Any, Callable[[Any], Line]]:
    """What is asked, and how the answer is shown."""
    who = _identity("--identity", getattr(options, "identity", ""))
    match options.subject, options.action:
        case "keys", "list":
            return admin_pb2.ListHeldKeysRequest(
                owner=_identity("--owner", options.owner), limit=_limit(options.limit)
            ), _keys
        case "keys", "delete":
            prefixes = [_prefix(text) for text in options.key]
            drop = admin_pb2.DeleteHeldKeysRequest(
                owner=_identity("--owner", options.owner), key_prefixes=prefixes, all=options.all
            )
            return drop, lambda answer: [f"{answer.deleted} deleted"]
        case "models", "list":
            return admin_pb2.ListServedModelsRequest(), _models
        case "models", "reload":
            return admin_pb2.ReloadModelsRequest(), _reloaded
        case "audit", _:
            return admin_pb2.GetAuditStatusRequest(), _audit
        case "budgets", "list":
            return admin_pb2.ListBudgetsRequest(identity=who, limit=_limit(options.limit)), _budgets
        case "budgets", "debit":
            debit = admin_pb2.DebitBudgetsRequest(
                identity=who, model=options.model, records=_records(options.records), today=options.today
            )
            return debit, lambda answer: list(map(_budget, answer.budgets))
        case _:
            reset = admin_pb2.ResetBudgetsRequest(identity=who, model=options.model)
            return reset, lambda answer: [f"{answer.reset} set back"]


def _identity(flag: str, text: str) -> str:
    """As callers have them: "ward-7" for "cn:ward-7" would find nothing, and say nothing."""
    if text and not is_identity(text):
        raise SettingsError(f"{flag}: expected an identity that begins with {', '.join(KINDS)}, got {text[:80]!r}")
    return text


def _records(records: int) -> int:
    if not 1 <= records < 1 << 63:
        raise SettingsError(f"--records: expected 1 or more, got {records}")
    return records


def _limit(limit: int) -> int:
    if not 0 <= limit < 1 << 31:
        raise SettingsError(f"--limit: expected 1 or more, or 0 for the server's most, got {limit}")
    return limit


def _prefix(text: str) -> bytes:
    try:
        prefix = bytes.fromhex(text)
    except ValueError:
        prefix = b""
    if not 4 <= len(prefix) <= 32:
        raise SettingsError(f"--key: expected 8 to 64 hex digits, two for each byte, got {text[:80]!r}")
    return prefix


def _token(file: Path | None) -> str | None:
    return None if file is None else _text("--token-file", file)


def _code(file: str | None) -> str:
    """Never an argument, which every user of the machine can read."""
    if file is None:
        if not sys.stdin.isatty():
            raise SettingsError(
                "the one-time code: no terminal to ask for it; give --code-file FILE, or - for standard input"
            )
        code = getpass.getpass("one-time code: ").strip()
    else:
        code = sys.stdin.readline().strip() if file == "-" else _text("--code-file", Path(file))
    if not (code.isascii() and code.isdigit() and len(code) <= LONGEST_CODE):
        raise SettingsError("the one-time code: expected digits, and got something else or nothing")
    return code


def _text(flag: str, file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{flag}: {file} cannot be read ({type(error).__name__})") from None


# Answers, for programs and for people.


def _plain(message: Any) -> Any:
    """A message as JSON: bytes in hex, every field there, numbers as numbers."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.has_presence and field.message_type is None and not message.HasField(field.name):
            found[field.name] = None
        elif isinstance(value, Mapping):
            found[field.name] = dict(value)
        elif isinstance(value, (str, bytes, int, float, bool)):
            found[field.name] = _leaf(value)
        elif hasattr(value, "DESCRIPTOR"):
            found[field.name] = _plain(value)
        else:
            found[field.name] = [_plain(each) if hasattr(each, "DESCRIPTOR") else _leaf(each) for each in value]
    return found


def _leaf(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _keys(answer: Any) -> Line:
    lines = [
        f"{key.key_prefix.hex()}…  {key.size:>10,} bytes  used {_time(key.used)}  {key.model}  "
        f"{key.owner or '(callers not told apart)'}"
        for key in answer.keys
    ]
    left = answer.count - len(answer.keys)
    return [*lines, f"{answer.count} keys, {answer.size:,} bytes" + (f"; {left} not shown" if left else "")]


def _models(answer: Any) -> Line:
    return [
        f"{model.name}  {model.digest.hex()[:12] or '-'}  {'ready' if model.ready else 'NOT READY'}"
        + (f"  ({model.reason})" if model.reason else "")
        + (f"  {len(model.earlier)} earlier in use" if model.earlier else "")
        for model in answer.models
    ]


def _reloaded(answer: Any) -> Line:
    lines = [
        f"{word}: {', '.join(names)}" for word in ("added", "changed", "removed") if (names := getattr(answer, word))
    ]
    lines += [f"refused: {name}: {reason}" for name, reason in sorted(answer.rejected.items())]
    return lines or ["nothing changed"]


def _audit(answer: Any) -> Line:
    if not answer.on:
        return ["the audit log is off"]
    return [
        f"head        {answer.head.sequence}:{answer.head.hash}",
        f"checkpoint  {answer.checkpoint.sequence}:{answer.checkpoint.hash}",
        f"key         {answer.key}",
        f"waiting     {answer.waiting}",
        *([f"FAILS       {answer.failure}"] if answer.failure else []),
    ]


def _budgets(answer: Any) -> Line:
    if not answer.on:
        return ["budgets are off"]
    return list(map(_budget, answer.budgets)) or ["nothing was debited"]


def _budget(each: Any) -> str:
    total = f" of {each.total_allowed}" if each.HasField("total_allowed") else ""
    daily = f" of {each.daily_allowed}" if each.HasField("daily_allowed") else ""
    model = f"{each.model or '(not served)'} {each.model_digest.hex()[:12]}"
    return f"{each.identity}  {model}  {each.total}{total} in all, {each.today}{daily} today"


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
