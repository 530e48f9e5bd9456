"""`secure-infer certs` from a CA to renewal: nothing overwritten, roles kept, and a renewal cut off at any point mended."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from secure_infer import pem
from secure_infer.errors import SettingsError
from secure_infer_server.callers import authority, own, renewal
from secure_infer_server.commands import certs
from secure_infer_server.mpc.roles import Role


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    assert certs.run(["ca", "--out", str(tmp_path / "ca"), "--name", "Clinic"]) == 0
    return tmp_path / "ca"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def issue(ca: Path, out: Path, role: str, name: str, *more: str) -> None:
    assert certs.run(["issue", "--ca", str(ca), "--role", role, "--name", name, "--out", str(out), *more]) == 0


def leaf(path: Path) -> x509.Certificate:
    return authority.read_certificates(path)[0]


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    capsys.readouterr()
    status = certs.run(["show", "--json", *arguments])
    return status, json.loads(capsys.readouterr().out)


def test_issued_and_shown(ca: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    issue(ca, out, "server", "infer-1", "--host", "infer.example", "--host", "10.0.0.5")
    issue(ca, out, "client", "ward-7", "--days", "7")
    issue(ca, out, "party:0", "left", "--host", "left.example")  # party0, as certificates write it
    issue(ca, out, "dealer", "dealer", "--host", "dealer.example")
    files = [str(path) for path in (ca / "ca.pem", *sorted(out.glob("*.pem")))]
    status, found = shown(capsys, *files)
    assert status == 1
    assert found["expiring"] == 1
    assert [(fact["role"], fact["name"], fact["hosts"]) for fact in found["certificates"]] == [
        ("ca", "Clinic", []),
        ("dealer", "dealer", ["dealer.example"]),
        ("server", "infer-1", ["infer.example", "10.0.0.5"]),
        ("party:0", "left", ["left.example"]),
        ("client", "ward-7", []),
    ]
    assert shown(capsys, *files, "--warn", "6")[0] == 0
    assert certs.run(["show", *files]) == 1
    assert "!     7.0 days  client    ward-7" in capsys.readouterr().out
    for path in out.glob("*.pem"):
        pem.key_pair("key", path.with_suffix(".key"), "chain", path)
        leaf(path).verify_directly_issued_by(leaf(ca / "ca.pem"))
        assert path.with_suffix(".key").stat().st_mode & 0o077 == 0


def test_nothing_is_overwritten(ca: Path, out: Path) -> None:
    issue(ca, out, "client", "ward-7")
    before = {path: path.read_bytes() for path in (*ca.iterdir(), *out.iterdir())}
    for arguments in (
        ["ca", "--out", str(ca)],
        ["dev", "--out", str(ca)],
        ["issue", "--ca", str(ca), "--role", "client", "--name", "ward-7", "--out", str(out)],
    ):
        with pytest.raises(SettingsError, match="nothing was overwritten"):
            certs.run(arguments)
    (out / "ward-7.key").unlink()
    with pytest.raises(SettingsError, match="nothing was overwritten"):
        issue(ca, out, "client", "ward-7")
    with pytest.raises(SettingsError, match="nothing was overwritten"):
        authority.write_new(ca / "ca.key", b"")
    assert all(path.read_bytes() == data for path, data in before.items() if path.exists())


def test_wrong_use(ca: Path, out: Path) -> None:
    for arguments, message in (
        (["--role", "client", "--name", "../ward"], "--name"),
        (["--role", "client", "--name", "ca"], "--name"),
        (["--role", "server", "--name", "a"], "--host"),
        (["--role", "client", "--name", "a", "--days", "0"], "--days"),
        (["--role", "client", "--name", "a", "--ca", str(out)], "ca.pem cannot be read"),
    ):
        with pytest.raises(SettingsError, match=message):
            certs.run(["issue", "--ca", str(ca), "--out", str(out), *arguments])
    certs.run(["ca", "--out", str(out / "short"), "--days", "5"])
    with pytest.raises(SettingsError, match="the CA's own ends"):
        issue(out / "short", out, "client", "a")


def request(path: Path, key: Any, name: str = "root") -> Path:
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(Role.DEALER)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    made = builder.add_extension(names, critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    path.write_bytes(made.sign(key, algorithm).public_bytes(Encoding.PEM))
    return path


def test_of_a_request_only_the_key_counts(ca: Path, out: Path, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = request(tmp_path / "r.csr", key)
    issue(ca, out, "client", "ward-7", "--csr", str(csr))
    made = leaf(out / "ward-7.pem")
    assert made.public_key() == key.public_key()
    assert made.subject.rfc4514_string() == "CN=ward-7"
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [Role.CLIENT]
    assert [path.name for path in out.iterdir()] == ["ward-7.pem"]
    assert renewal.renew(out, authority.read_authority(ca), within=None, days=None, keep_key=False)
    assert leaf(out / "ward-7.pem").public_key() == key.public_key()

    with pytest.raises(SettingsError, match="no Ed25519"):
        ed = request(tmp_path / "e.csr", ed25519.Ed25519PrivateKey.generate())
        issue(ca, out, "client", "b", "--csr", str(ed))
    data = bytearray(x509.load_pem_x509_csr(csr.read_bytes()).public_bytes(Encoding.DER))
    data[-1] ^= 1
    forged = tmp_path / "f.csr"
    forged.write_bytes(x509.load_der_x509_csr(bytes(data)).public_bytes(Encoding.PEM))
    for bad, message in ((forged, "does not hold"), (ca / "ca.pem", "expected a certificate request")):
        with pytest.raises(SettingsError, match=message):
            issue(ca, out, "client", "b", "--csr", str(bad))


def test_renewed(ca: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    issue(ca, out, "party1", "right", "--host", "right.example", "--days", "10")
    issue(ca, out, "client", "ward-7", "--days", "60")
    old = leaf(out / "right.pem")
    old_key = (out / "right.key").read_bytes()
    shutil.copy(ca / "ca.pem", out / "ca.pem")
    capsys.readouterr()
    assert certs.run(["renew", str(out), "--ca", str(ca), "--within", "30", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"right.pem"}
    new = leaf(out / "right.pem")
    pem.key_pair("key", out / "right.key", "chain", out / "right.pem")
    assert new.public_key() != old.public_key()
    assert new.subject == old.subject
    for kind in (x509.SubjectAlternativeName, x509.ExtendedKeyUsage, x509.KeyUsage, x509.BasicConstraints):
        assert new.extensions.get_extension_for_class(kind) == old.extensions.get_extension_for_class(kind)
    assert new.not_valid_before_utc < old.not_valid_after_utc  # they overlap
    span = new.not_valid_after_utc - new.not_valid_before_utc
    assert abs(span - (old.not_valid_after_utc - old.not_valid_before_utc)) < datetime.timedelta(seconds=5)
    (kept,) = (out / "old").glob("*.pem")
    assert leaf(kept) == old
    assert kept.with_suffix(".key").read_bytes() == old_key
    assert kept.with_suffix(".key").stat().st_mode & 0o077 == 0

    certs.run(["renew", str(out), "--ca", str(ca), "--keep-key", "--days", "20"])
    assert leaf(out / "right.pem").public_key() == new.public_key()
    assert round(renewal.days_left(leaf(out / "right.pem"))) == 20


def test_old_ones_go_when_they_expire(ca: Path, out: Path) -> None:
    issue(ca, out, "client", "ward-7")
    signer = authority.read_authority(ca)
    renewal.renew(out, signer, within=None, days=None, keep_key=False)
    (live,) = (out / "old").glob("*.pem")
    usages = authority.KINDS["client"][1]
    key = authority.new_key()
    gone = signer._signed(authority._common("x"), key.public_key(), datetime.timedelta(seconds=-9), usages, [])
    authority.write_new(out / "old" / "x-1.pem", authority.certificate_pem(gone))
    authority.write_new(out / "old" / "x-1.key", authority.key_pem(key))
    renewal.renew(out, signer, within=1, days=None, keep_key=False)
    assert sorted((out / "old").iterdir()) == sorted([live, live.with_suffix(".key")])


def test_two_renewals_at_once_leave_pairs_that_fit(ca: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer, and an operator's hand: the second waits until the first is done."""
    issue(ca, out, "client", "ward-7")
    signer, key = authority.read_authority(ca), out / "ward-7.key"
    half, go, write = threading.Event(), threading.Event(), renewal.write_new

    def slowly(path: Path, data: bytes) -> None:
        write(path, data)
        if path.name == "ward-7.key.new" and not half.is_set():
            half.set()
            assert go.wait(20)

    monkeypatch.setattr(renewal, "write_new", slowly)
    renewed: list[list[Path]] = []
    threads = [
        threading.Thread(
            target=lambda: renewed.append(renewal.renew(out, signer, within=None, days=None, keep_key=False))
        )
        for _ in range(2)
    ]
    threads[0].start()
    assert half.wait(20)
    threads[1].start()
    threads[1].join(0.1)
    go.set()
    for thread in threads:
        thread.join()
    assert len(renewed) == 2
    pem.key_pair("key", key, "chain", out / "ward-7.pem")
    with pytest.raises(SettingsError, match="expected a directory of certificates"):
        renewal.renew(out / "none", signer, within=None, days=None, keep_key=False)


def test_only_what_this_ca_signed(ca: Path, out: Path, tmp_path: Path) -> None:
    certs.run(["ca", "--out", str(tmp_path / "other"), "--name", "Clinic"])  # same name, another key
    issue(tmp_path / "other", out, "client", "ward-7")
    before = (out / "ward-7.pem").read_bytes()
    with pytest.raises(SettingsError, match=r"got ward-7\.pem of another; make new ones"):
        renewal.renew(out, authority.read_authority(ca), within=None, days=None, keep_key=False)
    issue(ca, out, "server", "infer-1", "--host", "localhost")
    renewed = renewal.renew(out, authority.read_authority(ca), within=None, days=None, keep_key=False)
    assert [path.name for path in renewed] == ["infer-1.pem"]
    assert (out / "ward-7.pem").read_bytes() == before


def test_public_keys_beside_certificates_are_left_alone(ca: Path, out: Path, capsys: Any) -> None:
    """As `signers.pem` of a server is."""
    issue(ca, out, "client", "ward-7")
    key = authority.new_key().public_key()
    signers = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (out / "signers.pem").write_bytes(signers)
    (renewed,) = renewal.renew(out, authority.read_authority(ca), within=None, days=None, keep_key=False)
    assert renewed.name == "ward-7.pem"
    capsys.readouterr()
    assert certs.run(["show", str(out / "signers.pem"), str(renewed)]) == 0
    certificate = x509.load_pem_x509_certificate(renewed.read_bytes())
    assert f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}" in capsys.readouterr().out


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("stop", range(9))
def test_a_renewal_cut_off_anywhere_is_mended(ca: Path, out: Path, stop: int, torn: bool, monkeypatch: Any) -> None:
    """Stopped before its n-th write or rename; the next run leaves a pair that belongs together, and nothing besides."""
    issue(ca, out, "client", "ward-7")
    signer = authority.read_authority(ca)
    old = (out / "ward-7.pem").read_bytes(), (out / "ward-7.key").read_bytes()
    done = 0

    class Cut(Exception):
        pass

    def counted(function: Any) -> Any:
        def step(*arguments: Any) -> Any:
            nonlocal done
            done += 1
            if done > stop:
                if function is authority.write_new and torn:
                    arguments[0].write_bytes(arguments[1][:40])  # cut off within
                raise Cut
            return function(*arguments)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(renewal, "write_new", counted(authority.write_new))
        patched.setattr(Path, "replace", counted(Path.replace))
        try:
            renewal.renew(out, signer, within=None, days=None, keep_key=False)
        except Cut:
            assert stop < 8
    renewal.renew(out, signer, within=0, days=None, keep_key=False)
    pem.key_pair("key", out / "ward-7.key", "chain", out / "ward-7.pem")
    assert {path.name for path in out.iterdir()} - {"old"} == {"ward-7.key", "ward-7.pem"}
    renewal.renew(out, signer, within=None, days=None, keep_key=False)
    pem.key_pair("key", out / "ward-7.key", "chain", out / "ward-7.pem")
    kept = {path.read_bytes() for path in (out / "old").iterdir()}
    assert kept.issuperset(old)


def test_probe_without_a_server() -> None:
    with pytest.raises(SettingsError, match="no answer"):
        certs.run(["probe", "127.0.0.1:1"])


@pytest.mark.parametrize("days", [-3, 3])
def test_a_certificate_that_is_not_valid_now_is_refused(
    ca: Path, out: Path, days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is used, rather than by the other side, which would say that the connection ended."""
    issue(ca, out, "server", "infer-1", "--host", "localhost", "--days", "2")
    pair = "--tls-key", out / "infer-1.key", "--tls-cert", out / "infer-1.pem"
    pem.key_pair(*pair)

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.datetime.now(tz) + datetime.timedelta(days=days)

    monkeypatch.setattr(pem, "datetime", Later)
    with pytest.raises(SettingsError, match=r"--tls-cert: .*infer-1\.pem is valid from .* UTC, and it is .* here"):
        pem.key_pair(*pair)


def test_a_renewal_leaves_owner_and_mode(ca: Path, out: Path) -> None:
    """A service that runs as another user goes on reading its key when root renews it."""
    issue(ca, out, "server", "infer-1", "--host", "localhost")
    (out / "infer-1.key").chmod(0o640)
    (out / "infer-1.pem").chmod(0o440)
    if os.geteuid() == 0:
        for suffix in ("key", "pem"):
            os.chown(out / f"infer-1.{suffix}", 10001, 10002)
    before = {path.name: path.stat() for path in out.iterdir()}
    assert certs.run(["renew", str(out), "--ca", str(ca)]) == 0
    for name, old in before.items():
        new = (out / name).stat()
        assert new.st_ino != old.st_ino
        assert (new.st_mode, new.st_uid, new.st_gid) == (old.st_mode, old.st_uid, old.st_gid)


def test_a_cas_key_is_its_owners(ca: Path, out: Path) -> None:
    (ca / "ca.key").chmod(0o640)
    with pytest.raises(SettingsError, match=r"ca\.key can be used by others than its owner; make it 0600"):
        issue(ca, out, "client", "ward-7")


def test_a_renewal_hands_over_only_what_it_made(ca: Path, out: Path) -> None:
    """Who may write to the directory plants links to the CA's files, a pair that fits: root does not give them away."""
    issue(ca, out, "server", "infer-1", "--host", "localhost")
    before = (ca / "ca.key").stat()
    for suffix in ("pem", "key"):
        (out / f"infer-1.{suffix}.new").symlink_to(ca / f"ca.{suffix}")
        if os.geteuid() == 0:
            os.chown(out / f"infer-1.{suffix}", 10001, 10001)
    with pytest.raises(SettingsError, match=r"infer-1\.key\.new cannot be taken"):
        certs.run(["renew", str(out), "--ca", str(ca)])
    after = (ca / "ca.key").stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


def test_a_certificate_whose_extensions_cannot_be_read_is_taken_as_before(ca: Path, out: Path) -> None:
    """Nothing can be said of what it is for, so nothing is."""
    issue(ca, out, "server", "infer-1", "--host", "localhost")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    # A name of kind ediPartyName, which the library does not know.
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), bytes.fromhex("300aa508a10613046e616d65"))
    (out / "odd.pem").write_bytes(
        builder.add_extension(odd, critical=False).sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    )
    with pytest.raises((ValueError, x509.UnsupportedGeneralNameType)):
        _ = leaf(out / "odd.pem").extensions
    own.require_for_servers(leaf(out / "odd.pem"), out / "odd.pem")
    assert list(own.for_servers_alone(out / "odd.pem")) == []
