"""Certificates of a directory renewed in place, NAME.pem and NAME.key; the old ones stay in `old/` until they expire.

A certificate and its key are two files, which no file system replaces at once. Both are written beside the old ones first
(`.new`), then renamed, the key before the certificate. A server that reads in between keeps what it had
(`callers.credentials`), and a renewal that was cut off there is completed by the next.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from secure_infer import whole
from secure_infer.errors import SettingsError
from secure_infer_server.alone import alone_in
from secure_infer_server.callers.authority import (
    Authority,
    certificate_pem,
    holds_certificates,
    key_pem,
    new_key,
    read_certificates,
    read_key,
    write_new,
)
from secure_infer_server.callers.own import days_left

OLD = "old"


def renew(directory: Path, authority: Authority, *, within: int | None, days: int | None, keep_key: bool) -> list[Path]:
    """Renew every certificate that the CA signed; returns the paths of those renewed.

    within: only those that expire in so many days. days: validity; None: as before. keep_key: sign the same key again. Without a
    key in the directory, as after a request, the same key is signed again in any case. Raises SettingsError where there are
    certificates and the CA signed none of them. A renewal that is at work there already is waited for.
    """
    if not directory.is_dir():
        raise SettingsError(f"{directory}: expected a directory of certificates")
    with alone_in(directory):
        return _renewed(directory, authority, within, days, keep_key)


def _renewed(directory: Path, authority: Authority, within: int | None, days: int | None, keep_key: bool) -> list[Path]:
    _complete(directory)
    _drop_expired(directory / OLD)
    paths = (path for path in sorted(directory.glob("*.pem")) if path.name != "ca.pem" and holds_certificates(path))
    found = {path: read_certificates(path)[0] for path in paths}
    signed = {path: certificate for path, certificate in found.items() if authority.signed(certificate)}
    if found and not signed:
        raise SettingsError(
            f"{directory}: expected certificates that this CA signed, got {', '.join(path.name for path in found)} of another; "
            "make new ones with `secure-infer certs issue`"
        )
    renewed = []
    for path, certificate in signed.items():
        if within is not None and days_left(certificate) > within:
            continue
        _renew(path, certificate, authority, days, keep_key)
        renewed.append(path)
    return renewed


def _renew(path: Path, old: x509.Certificate, authority: Authority, days: int | None, keep_key: bool) -> None:
    key_path = path.with_suffix(".key")
    public = old.public_key()
    if not isinstance(public, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise SettingsError(f"{path}: expected an EC or RSA key")
    key = new_key() if key_path.exists() and not keep_key else None
    renewed = authority.renew(old, public if key is None else key.public_key(), days)
    kept = path.parent / OLD
    kept.mkdir(mode=0o700, exist_ok=True)
    stem = f"{path.stem}-{old.serial_number:x}"
    _keep(path, kept / f"{stem}.pem")
    if key is not None:
        _keep(key_path, kept / f"{stem}.key")
        write_new(_beside(key_path), key_pem(key))
    # Written last: `_complete` takes a renewal to be meant once its certificate is there.
    write_new(_beside(path), certificate_pem(renewed))
    _put_in_place(path)


def _put_in_place(path: Path) -> None:
    key_path = path.with_suffix(".key")
    for target in (key_path, path):
        if _beside(target).exists():
            _hand_over(target, _beside(target))
            _beside(target).replace(target)
    whole.sync_directory(path.parent)


def _hand_over(old: Path, new: Path) -> None:
    """The new file's mode, and where root renews its owner, are the old one's: a service goes on reading its key."""
    if os.name != "posix" or not old.exists():
        return
    found = old.stat()
    mode = stat.S_IMODE(found.st_mode)
    try:
        descriptor = os.open(new, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise SettingsError(f"{new} cannot be taken ({error.strerror}); remove it") from None
    try:
        made = os.fstat(descriptor)
        if not stat.S_ISREG(made.st_mode) or made.st_nlink != 1 or made.st_uid not in (os.geteuid(), found.st_uid):
            raise SettingsError(f"{new} is not a file that a renewal made; remove it")
        if os.geteuid() == 0:
            os.fchown(descriptor, found.st_uid, found.st_gid)
        elif found.st_gid != made.st_gid:
            try:
                os.fchown(descriptor, -1, found.st_gid)
            except OSError:
                mode &= ~0o070
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _complete(directory: Path) -> None:
    """Finish, or undo, what an earlier run left in between."""
    for beside in sorted(directory.glob("*.pem.new")):
        path = beside.with_suffix("")
        key_path = path.with_suffix(".key")
        key_file = _beside(key_path) if _beside(key_path).exists() else key_path
        try:
            public = read_certificates(beside)[0].public_key()
            belongs = not key_file.exists() or read_key(key_file).public_key() == public
        except SettingsError:
            belongs = False  # cut off while it was written
        if belongs:
            _put_in_place(path)
        else:
            beside.unlink()
    for beside in directory.glob("*.key.new"):
        beside.unlink()


def _drop_expired(kept: Path) -> None:
    for path in kept.glob("*.pem"):
        if days_left(read_certificates(path)[0]) < 0:
            path.unlink()
            path.with_suffix(".key").unlink(missing_ok=True)


def _keep(path: Path, kept: Path) -> None:
    """A copy that is there whole, or not at all."""
    beside = _beside(kept)
    beside.unlink(missing_ok=True)
    write_new(beside, path.read_bytes())
    beside.replace(kept)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")
