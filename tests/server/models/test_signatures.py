"""Signatures of models: who is believed, what is refused by name, and the commands."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from secure_infer.errors import InvalidHead, SecureInferError, SettingsError
from secure_infer.heads import Head
from secure_infer.mpc import sharefile
from secure_infer_server import ed25519
from secure_infer_server.commands import inspect, sign_model
from secure_infer_server.models.serials import Serials, require_newest
from secure_infer_server.models.settings import ReloadSettings
from secure_infer_server.models.signatures import MAX_BYTES, Signature, Signers, message, signature_of
from shared import linear_head


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with mine.pem, other.pem and their public halves."""
    directory = tmp_path_factory.mktemp("keys")
    linear_head(4, 2).save(directory / "m.head")
    for name in ("mine", "other"):
        arguments = [str(directory / "m.head"), "--key", str(directory / f"{name}.pem"), "--new-key", "--json"]
        assert sign_model.run(arguments) == 0
    return directory


@pytest.fixture
def model(tmp_path: Path, keys: Path) -> Path:
    """A model that mine signed."""
    file = tmp_path / "m.head"
    linear_head(4, 2).save(file)
    sign_model.run([str(file), "--key", str(keys / "mine.pem"), "--serial", "5", "--json"])
    return file


def test_a_signature_is_verified(model: Path, keys: Path) -> None:
    digest = Head.load(model).digest
    found = Signers.of(keys / "mine.pub.pem").require(model, digest)
    assert (found.model, found.digest, found.serial) == ("m", digest, 5)
    both = keys / "both.pem"
    both.write_bytes((keys / "other.pub.pem").read_bytes() + (keys / "mine.pub.pem").read_bytes())
    assert Signers.of(both).require(model, digest) == found
    assert found.key in Signers.of(both).fingerprints


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"digest": "0" * 64}, "it signs digest 000000000000…"),
        ({"model": "n"}, "the signature of model 'n', expected 'm'"),
        ({"serial": 6}, "the signature is not that of key"),
        ({"signature": "00" * 64}, "the signature is not that of key"),
        ({"signature": "zz"}, "the signature is not that of key"),
        ({"key": "0" * 32}, "signed by key 000000000000…; expected"),
        ({"format": 2}, "signature format 2; this version reads format 1"),
        ({"serial": "6"}, "not a signature"),
        ({"serial": True}, "not a signature"),
        ({"more": 1}, "not a signature"),
        ({"key": "0" * MAX_BYTES}, "not a signature, or cut short"),
    ],
)
def test_what_is_wrong_with_a_signature_is_named(model: Path, keys: Path, change: dict, expected: str) -> None:
    path = signature_of(model)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InvalidHead, match=expected):
        Signers.of(keys / "mine.pub.pem").require(model, Head.load(model).digest)


@pytest.mark.parametrize("content", [b"", b"null", b"[" * 3000, b"\xff", b"{}"])
def test_bytes_that_are_no_signature(model: Path, keys: Path, content: bytes) -> None:
    signature_of(model).write_bytes(content)
    with pytest.raises(InvalidHead, match=r"m\.head\.sig: not a signature"):
        Signers.of(keys / "mine.pub.pem").require(model, Head.load(model).digest)


def test_a_missing_signature_says_what_makes_one(model: Path, keys: Path) -> None:
    signature_of(model).unlink()
    with pytest.raises(InvalidHead, match=r"m.head.sig is missing; .*secure-infer sign-model"):
        Signers.of(keys / "mine.pub.pem").require(model, Head.load(model).digest)


def test_the_message_is_of_one_model_alone() -> None:
    assert message("a", "0", 1).startswith(b"secure-infer model signature 1\n")
    fields = [("a", "b", 1), ("a\nb", "", 1), ('a", "b', "", 1), ("a", "b1", 1), ("a", "b", 11)]
    assert len({message(*each) for each in fields}) == len(fields)


def test_newest_serials_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "serials.json"
    first = Serials(path)
    first.keep("m", 7)
    first.keep("m", 3)
    assert (first.newest("m"), Serials(path).newest("m"), Serials().newest("m")) == (7, 7, 0)
    require_newest("m", 7, first.newest("m"))
    with pytest.raises(InvalidHead, match=r"serial 6, a newer one of 7 .* sign it again"):
        require_newest("m", 6, first.newest("m"))
    for content in ("[]", '{"m": "7"}', "{"):
        path.write_text(content)
        with pytest.raises(SettingsError, match="cannot be read"):
            Serials(path)
    with pytest.raises(SettingsError, match="cannot be written"):
        Serials(tmp_path / "nowhere" / "serials.json").keep("m", 1)


def test_settings() -> None:
    for wrong, expected in (
        ({"watch": -1.0}, "--reload: expected seconds"),
        ({"grace": float("nan")}, "--model-grace: expected seconds"),
        ({"kept": -1}, "--model-versions"),
        ({"serials": Path("x")}, "needs --model-signers"),
    ):
        with pytest.raises(SettingsError, match=expected):
            ReloadSettings(**wrong)


# Commands.


def test_the_command_says_what_it_signed(model: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sign_model.run([str(model), "--key", str(keys / "mine.pem"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert sorted(facts) == ["digest", "file", "key", "model", "public_key", "serial"]
    assert (facts["model"], facts["public_key"]) == ("m", None)
    assert facts["serial"] > 1.7e12
    assert Signature.read(Path(facts["file"])).key == facts["key"]
    fresh = model.with_name("fresh.pem")
    sign_model.run([str(model), "--key", str(fresh), "--new-key"])
    assert "give it to servers as --model-signers" in capsys.readouterr().out
    assert fresh.stat().st_mode & 0o777 == 0o600


def test_keys_are_not_overwritten_nor_shared(model: Path, keys: Path) -> None:
    with pytest.raises(SettingsError, match="nothing was overwritten"):
        sign_model.run([str(model), "--key", str(keys / "mine.pem"), "--new-key"])
    loose = model.with_name("loose.pem")
    loose.write_bytes((keys / "mine.pem").read_bytes())
    loose.chmod(0o644)
    for path, expected in ((loose, "make it 0600"), (model, "make it 0600"), (model.with_name("no"), "cannot be read")):
        with pytest.raises(SettingsError, match=expected):
            sign_model.run([str(model), "--key", str(path)])
    with pytest.raises(SettingsError, match="--serial"):
        sign_model.run([str(model), "--key", str(keys / "mine.pem"), "--serial", "0"])
    with pytest.raises(SettingsError, match="holds no Ed25519 public key"):
        Signers.of(keys / "mine.pem")
    assert ed25519.private(keys / "mine.pem", "key")


def test_inspect_shows_and_verifies(model: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def facts(*options: str) -> dict:
        assert inspect.run([str(model), *options, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    found = facts("--signers", str(keys / "mine.pub.pem"))
    assert (found["signature_serial"], found["signature_verified"]) == (5, True)
    assert facts()["signature_verified"] is None
    assert facts()["signed_by"] == found["signed_by"]
    with pytest.raises(SecureInferError, match="signed by key"):
        facts("--signers", str(keys / "other.pub.pem"))
    signature_of(model).unlink()
    assert facts()["signed_by"] is None


def test_halves_are_signed_as_well(tmp_path: Path, keys: Path) -> None:
    folders = [tmp_path / str(party) for party in (0, 1)]
    for folder in folders:
        folder.mkdir()
    _, paths = sharefile.share_model(linear_head(4, 2), folders, "m")
    for path in paths:
        sign_model.run([str(path), "--key", str(keys / "mine.pem"), "--json"])
        Signers.of(keys / "mine.pub.pem").require(path, sharefile.load(path).spec.digest)


def test_servers_that_share_serials_forget_nothing_of_each_others(tmp_path: Path) -> None:
    """As two of one machine during an upgrade; each knows what the other took, at once and after a restart."""
    path = tmp_path / "serials.json"
    one, two = Serials(path), Serials(path)
    one.keep("icd", 500)
    assert two.newest("icd") == 500
    two.keep("triage", 7)
    two.keep("icd", 400)
    assert [each.newest(name) for each in (one, two, Serials(path)) for name in ("icd", "triage")] == [500, 7] * 3
    each = [Serials(path) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: each[number].keep(f"m{number}", number + 1), range(8)))
    assert [Serials(path).newest(f"m{number}") for number in range(8)] == list(range(1, 9))
    path.write_text("[]")
    with pytest.raises(SettingsError, match="cannot be read"):
        one.newest("icd")


def test_a_key_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    """A process that is killed on the way leaves nothing that the next start would trip over."""
    code = (
        "import os, signal, sys, pathlib\n"
        "from secure_infer_server import ed25519\n"
        "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "ed25519.make(pathlib.Path(sys.argv[1]), 'key')\n"
    )
    path = tmp_path / "key.pem"
    assert subprocess.run([sys.executable, "-c", code, str(path)], timeout=60).returncode == -signal.SIGKILL
    assert not path.exists()
    ed25519.make(path, "key")
    assert path.stat().st_mode & 0o777 == 0o600
    made = path.read_bytes()
    with pytest.raises(SettingsError, match="is there already"):
        ed25519.make(path, "key")
    assert path.read_bytes() == made
