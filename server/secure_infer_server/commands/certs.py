"""`secure-infer certs`: certificates of servers, parties, a dealer and clients, made and renewed. Every one takes --json."""

from __future__ import annotations

import argparse
import ipaddress
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from secure_infer import address
from secure_infer.errors import SettingsError
from secure_infer_server.callers import authority, probe, transport
from secure_infer_server.callers.authority import KINDS
from secure_infer_server.callers.own import SOON_DAYS, days_left
from secure_infer_server.callers.renewal import renew
from secure_infer_server.mpc import roles

DAYS = {"dev": 30, "ca": 3650, "issue": 90}
_LONGEST = {"dev": 825, "ca": 7300, "issue": 825, "renew": 825}
_LOCAL = ("localhost", "127.0.0.1", "::1")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def run(arguments: list[str]) -> int:
    """One of dev, ca, issue, renew, show and probe; the exit status is 1 when `show` finds what expires soon."""
    options = _parser().parse_args(arguments)
    days = getattr(options, "days", None)
    if days is not None and not 1 <= days <= _LONGEST[options.kind]:
        raise SettingsError(f"--days: expected 1 to {_LONGEST[options.kind]}, got {days}")
    status: int = options.run(options)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("secure-infer certs", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="dev|ca|issue|renew|show|probe")

    def add(name: str, function: Any, summary: str) -> argparse.ArgumentParser:
        made = kinds.add_parser(name, help=summary, description=summary)
        made.set_defaults(run=function)
        made.add_argument("--json", action="store_true", help="print one JSON object")
        if name in DAYS:
            made.add_argument("--days", type=int, default=DAYS[name], help=f"validity ({DAYS[name]})")
        return made

    dev = add("dev", _dev, "a CA and one certificate of each kind, for trying out TLS; not for production")
    dev.add_argument("--out", type=Path, default=Path("certs"), metavar="DIR", help="where to write (./certs)")
    dev.add_argument(
        "--host", action="append", default=[], metavar="NAME", help="further names or addresses of servers"
    )
    dev.add_argument("--client", default="dev-client", metavar="NAME", help="the client certificate's common name")

    ca = add("ca", _ca, "a CA: ca.pem, which everybody gets, and ca.key, which stays off the servers")
    ca.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    ca.add_argument("--name", default="secure-infer CA", metavar="NAME", help="its common name")

    issue = add("issue", _issue, "a certificate signed by a CA: NAME.pem and NAME.key, or NAME.pem for a request")
    issue.add_argument("--ca", type=Path, required=True, metavar="DIR", help="holds ca.pem and ca.key")
    issue.add_argument(
        "--role", type=_kind, choices=list(KINDS), required=True, help="what it is for; party:0 is party0"
    )
    issue.add_argument("--name", required=True, help="common name, by which callers are known; the files' too")
    issue.add_argument(
        "--host", action="append", default=[], metavar="HOST", help="name or address of a server; repeatable"
    )
    issue.add_argument(
        "--csr", type=Path, metavar="F", help="sign this request's key (PEM); its names are not looked at"
    )
    issue.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")

    again = add(
        "renew", _renew, "new certificates and keys for those in DIR, same names and roles; old ones stay in DIR/old"
    )
    again.add_argument("directory", type=Path, metavar="DIR", help="holds NAME.pem and NAME.key")
    again.add_argument("--ca", type=Path, required=True, metavar="DIR", help="holds ca.pem and ca.key")
    again.add_argument("--within", type=int, metavar="DAYS", help="only those that expire within so many days")
    again.add_argument("--days", type=int, help="validity (as long as before)")
    again.add_argument("--keep-key", action="store_true", help="sign the same keys again")

    show = add("show", _show, "whose certificates are, and for how long; exit status 1 when one expires soon")
    show.add_argument("files", type=Path, nargs="+", metavar="FILE", help="certificates in PEM")
    show.add_argument(
        "--warn", type=float, default=SOON_DAYS, metavar="DAYS", help=f"soon is within so many days ({SOON_DAYS:g})"
    )

    ask = add("probe", _probe, "which TLS a server takes; exit status 1 when it takes 1.2")
    ask.add_argument("target", metavar="HOST:PORT")
    return parser


def make(directory: Path, hosts: Sequence[str], client: str, days: int) -> dict[str, Path]:
    """A CA and a certificate of each kind in `directory`; returns the paths by name. Private keys are readable by their owner
    only. Raises SettingsError, and writes nothing, when one of the files is there already."""
    _directory("--out", directory)
    _require_absent(directory, *(f"{name}.{suffix}" for name in ("ca", *KINDS) for suffix in ("key", "pem")))
    ca = authority.new_authority("secure-infer development CA", days + 1)
    paths = _write(directory, "ca", ca.certificate, ca.key)
    for kind in KINDS:
        key = authority.new_key()
        common = {"server": hosts[0], "client": client}.get(kind, kind)
        paths |= _write(directory, kind, ca.sign(kind, common, hosts, key.public_key(), days), key)
    return paths


def _dev(options: argparse.Namespace) -> int:
    paths = make(options.out, [*_LOCAL, *options.host], options.client, options.days)
    _tell(options, paths)
    if not options.json:
        sys.stdout.write(
            f"server: --tls-cert {paths['server.pem']} --tls-key {paths['server.key']} --client-ca {paths['ca.pem']}\n"
            "party and dealer: the same with party0, party1 or dealer in place of server\n"
            f"client: --root-certificates {paths['ca.pem']} --private-key {paths['client.key']} "
            f"--certificate-chain {paths['client.pem']}\n"
        )
    return 0


def _ca(options: argparse.Namespace) -> int:
    _directory("--out", options.out)
    _require_absent(options.out, "ca.pem", "ca.key")
    made = authority.new_authority(options.name, options.days)
    _tell(options, _write(options.out, "ca", made.certificate, made.key))
    return 0


def _kind(role: str) -> str:
    """The kind of certificate of a role, also as certificates and refusals write it: "party:0" is "party0"."""
    return role.replace(":", "")


def _issue(options: argparse.Namespace) -> int:
    name = options.name
    if not _NAME.fullmatch(name) or name == "ca":
        raise SettingsError(f"--name: expected up to 64 letters, digits, dots, dashes and underscores, got {name!r}")
    if ExtendedKeyUsageOID.SERVER_AUTH in KINDS[options.role][1] and not options.host:
        raise SettingsError(f"--host: a certificate for {options.role} is reached by some name; give at least one")
    ca = authority.read_authority(options.ca)
    _directory("--out", options.out)
    _require_absent(options.out, f"{name}.pem", f"{name}.key")
    key = None if options.csr else authority.new_key()
    public = authority.requested_key(options.csr) if key is None else key.public_key()
    certificate = ca.sign(options.role, name, options.host, public, options.days)
    _tell(options, _write(options.out, name, certificate, key))
    return 0


def _renew(options: argparse.Namespace) -> int:
    ca = authority.read_authority(options.ca)
    if not options.directory.is_dir():
        raise SettingsError(f"{options.directory} is not a directory")
    renewed = renew(options.directory, ca, within=options.within, days=options.days, keep_key=options.keep_key)
    _tell(options, {path.name: path for path in renewed})
    return 0


def _show(options: argparse.Namespace) -> int:
    paths = [path for path in options.files if len(options.files) == 1 or authority.holds_certificates(path)]
    found = [_facts(path, one) for path in paths for one in authority.read_certificates(path)]
    soon = [fact for fact in found if fact["days"] <= options.warn]
    if options.json:
        sys.stdout.write(json.dumps({"certificates": found, "expiring": len(soon)}) + "\n")
    else:
        for fact in found:
            mark = "!" if fact in soon else " "
            who = "  ".join((fact["role"].ljust(8), fact["name"], *fact["hosts"]))
            sys.stdout.write(f"{mark} {fact['days']:7.1f} days  {who}  {fact['file']}  {fact['fingerprint']}\n")
    return 1 if soon else 0


def _probe(options: argparse.Namespace) -> int:
    host, port = address.parse(options.target, "HOST:PORT")
    try:
        old, groups = transport.accepts_tls12(host, port), probe.groups(host, port)
    except OSError as error:
        raise SettingsError(f"{options.target}: no answer ({error.strerror or type(error).__name__})") from None
    if options.json:
        sys.stdout.write(json.dumps({"tls12": old, "groups": groups}) + "\n")
    else:
        sys.stdout.write(f"TLS 1.2  {'taken' if old else 'refused'}\nTLS 1.3  {', '.join(groups) or 'refused'}\n")
    return 1 if old or not groups else 0


def _facts(path: Path, certificate: x509.Certificate) -> dict[str, Any]:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        alternatives = x509.SubjectAlternativeName([])
    return {
        "file": str(path),
        "name": str(names[0].value) if names else "",
        "role": _role(certificate, alternatives.get_values_for_type(x509.UniformResourceIdentifier)),
        "hosts": alternatives.get_values_for_type(x509.DNSName)
        + [str(found) for found in alternatives.get_values_for_type(x509.IPAddress) if _is_address(found)],
        "issuer": certificate.issuer.rfc4514_string(),
        "fingerprint": f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}",
        "serial": f"{certificate.serial_number:x}",
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "days": round(days_left(certificate), 2),
    }


def _role(certificate: x509.Certificate, uris: list[str]) -> str:
    """ "ca", "server", or the role that callers with this certificate have; "none" for several or an unknown one."""
    try:
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return "ca"
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usages = x509.ExtendedKeyUsage([])
    role = roles.of_uris(uris)
    if role is roles.Role.CLIENT and ExtendedKeyUsageOID.SERVER_AUTH in usages:
        return "server"
    return "none" if role is None else role.short


def _is_address(found: object) -> bool:
    return isinstance(found, (ipaddress.IPv4Address, ipaddress.IPv6Address))


def _write(directory: Path, name: str, certificate: x509.Certificate, key: Any | None) -> dict[str, Path]:
    paths = {f"{name}.pem": directory / f"{name}.pem"}
    if key is not None:
        paths[f"{name}.key"] = directory / f"{name}.key"
        authority.write_new(paths[f"{name}.key"], authority.key_pem(key))
    authority.write_new(paths[f"{name}.pem"], authority.certificate_pem(certificate))
    return paths


def _require_absent(directory: Path, *names: str) -> None:
    present = [name for name in names if (directory / name).exists()]
    if present:
        raise SettingsError(f"--out: {directory} already holds {', '.join(present)}; nothing was overwritten")


def _directory(what: str, directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"{what}: {directory} cannot be made ({error.strerror})") from error


def _tell(options: argparse.Namespace, paths: dict[str, Path]) -> None:
    if options.json:
        sys.stdout.write(json.dumps({name: str(path) for name, path in paths.items()}) + "\n")
    else:
        sys.stdout.write("".join(f"{path}\n" for path in paths.values()))
