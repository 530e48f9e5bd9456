"""Who can write to the directory of models: a changed model, another model's signature, an older version put back.

An open server serves them all; one that is told whose signatures to take serves none of them. What a signature by itself does
not stop is an older version with its own, true signature: its serial does, for as long as the newest one is remembered.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from secure_infer.errors import SettingsError
from secure_infer.heads import Head
from secure_infer_server.commands import sign_model
from secure_infer_server.models.registry import Registry
from secure_infer_server.models.settings import ReloadSettings
from secure_infer_server.models.signatures import signature_of
from secure_infer_server.settings import Settings
from secure_infer_server.workers.settings import WorkerSettings
from shared import linear_head


class Operator:
    """Signs versions of two models; `directory` is what the adversary can write to."""

    def __init__(self, path: Path) -> None:
        self.directory, self.key = path / "models", path / "key.pem"
        self.directory.mkdir()
        self.serials = path / "serials.json"
        self.release("m", linear_head(4, 2), 1, "--new-key")
        self.release("other", linear_head(4, 2, seed=3), 1)

    def release(self, name: str, head: Head, serial: int, *options: str) -> dict[Path, bytes]:
        """Serve a version; returns its files, which the adversary keeps."""
        file = self.directory / f"{name}.head"
        head.save(file)
        sign_model.run([str(file), "--key", str(self.key), "--serial", str(serial), "--json", *options])
        return {each: each.read_bytes() for each in (file, signature_of(file))}

    def start(self, *, signed: bool, remembered: bool = False) -> Served:
        signers = self.key.with_suffix(".pub.pem") if signed else None
        serials = self.serials if remembered else None
        reload = ReloadSettings(watch=0.0, signers=signers, serials=serials)
        return Served(
            Settings(self.directory, "127.0.0.1", 0, insecure=True, batches=0, workers=WorkerSettings(0), reload=reload)
        )


class Served:
    def __init__(self, settings: Settings) -> None:
        self.registry, self.watch = Registry.watched(settings)
        self.watch.start()

    def after(self, name: str = "m") -> str:
        """The digest that is served once the directory was looked at, and why its file is not."""
        for _ in range(2):
            self.watch.look()
        self.reason = self.registry.readiness(name).held_back
        return self.registry.get(name).spec.digest


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


@pytest.mark.parametrize("signed", [False, True])
def test_a_changed_model(operator: Operator, signed: bool) -> None:
    served = operator.start(signed=signed)
    before = served.after()
    wrong = linear_head(4, 2, seed=666)  # well made, with a digest of its own
    wrong.save(operator.directory / "m.head")
    assert (served.after() == wrong.digest) is not signed
    if signed:
        assert served.after() == before
        assert "it signs digest" in served.reason
        path = signature_of(operator.directory / "m.head")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"digest": wrong.digest}))
        assert served.after() == before
        assert "the signature is not that of key" in served.reason
        path.unlink()
        assert served.after() == before
        assert "m.head.sig is missing" in served.reason


@pytest.mark.parametrize("signed", [False, True])
def test_another_models_place(operator: Operator, signed: bool) -> None:
    served = operator.start(signed=signed)
    before = served.after()
    other = operator.directory / "other.head"
    for source, target in ((other, "m.head"), (signature_of(other), "m.head.sig")):
        (operator.directory / target).write_bytes(source.read_bytes())
    moved = Head.load(other).digest
    assert served.after() == (before if signed else moved)
    if signed:
        assert "the signature of model 'other', expected 'm'" in served.reason


@pytest.mark.parametrize(("signed", "remembered"), [(False, False), (True, False), (True, True)])
def test_an_older_version_put_back(operator: Operator, signed: bool, remembered: bool) -> None:
    old = operator.release("m", linear_head(4, 2, seed=1), 10)
    new = linear_head(4, 2, seed=2)
    operator.release("m", new, 20)
    served = operator.start(signed=signed, remembered=remembered)
    assert served.after() == new.digest
    for path, content in old.items():
        path.write_bytes(content)
    # While the server runs, it remembers what it has taken.
    assert (served.after() == new.digest) is signed
    # The limit: a server that was started anew remembers only what it wrote down.
    again = operator.start(signed=signed, remembered=remembered)
    if remembered:
        assert "m" not in again.registry.names()
        assert "a newer one of 20 was taken before" in again.registry.rejected["m"]
        operator.release("m", linear_head(4, 2, seed=1), 30)  # the operator may go back
        again.watch.look()
        again.watch.look()
        assert again.registry.get("m").spec.digest == linear_head(4, 2, seed=1).digest
    else:
        assert again.registry.get("m").spec.digest == linear_head(4, 2, seed=1).digest


def test_a_server_of_signed_models_starts_with_none_but_those(operator: Operator) -> None:
    linear_head(4, 2, seed=9).save(operator.directory / "mine.head")
    served = operator.start(signed=True)
    assert served.registry.names() == ["m", "other"]
    assert "mine.head.sig is missing" in served.registry.rejected["mine"]
    for path in operator.directory.glob("*.sig"):
        path.unlink()
    with pytest.raises(SettingsError, match="no file loads"):
        operator.start(signed=True)
