"""A server that is killed at random moments while its models change, and what must hold whenever it serves.

A writer replaces heads without pause: `atomic` by renaming, `torn` in place and in pieces, `gone` written and removed, `steady`
never; each with a signature beside it. A server is started, asked, and killed (SIGKILL), at times before it is ready; every
other one takes signed models alone. Whatever it serves answers, encrypted, as one of the versions that were written under that
name; `steady` is always served, and without signatures `atomic` is; the serials that a server wrote down never go back.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tqdm import tqdm

from secure_infer.errors import ModelChanged, UnknownModel
from secure_infer.heads import Head, Linear
from secure_infer_client import Client
from secure_infer_client.local_server import LocalServer
from secure_infer_server import ed25519
from secure_infer_server.models.serials import Serials
from secure_infer_server.models.signatures import Signature, signature_of

NAMES = ("steady", "atomic", "torn", "gone")
VERSIONS, FEATURES, CLASSES = 5, 8, 3
LONGEST = 3.0
"""Seconds from when a server is ready to its end."""
UNREADY = 0.2
"""Of all servers, those that are killed before they are ready."""
_RELOAD = "0.05"


class Inconsistent(Exception):
    """A server that answered what nobody wrote, or did not serve what was there."""


@dataclass
class Endured:
    """Servers killed, of them before they were ready; answers that were checked, by model; versions that were seen to follow
    another while one server ran; files that servers held back or did not serve, as their logs say."""

    kills: int = 0
    unready: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    changes: int = 0
    refused: int = 0


def version(name: str, number: int) -> Head:
    """One of the heads that are written under a name, the same in every process."""
    rng = np.random.default_rng([NAMES.index(name), number])
    layers = [Linear(rng.normal(size=(CLASSES, FEATURES)), rng.normal(size=CLASSES))]
    return Head(layers, labels=[f"class {k}" for k in range(CLASSES)], input_bound=1.0, input_norm=1.0)


def write(directory: Path, key: Path, seed: int) -> None:
    """The writer: never ends by itself."""
    choose, signer = random.Random(seed), ed25519.private(key, "key")
    whole = {(name, n): _bytes(directory, version(name, n)) for name in NAMES for n in range(VERSIONS)}
    while True:
        name, number = choose.choice(NAMES[1:]), choose.randrange(VERSIONS)
        head, data, file = version(name, number), whole[name, number], directory / f"{name}.head"
        signature = Signature.make(signer, name, head.digest, int(1000 * time.time()))
        if name == "atomic":
            head.save(file)
        elif name == "gone" and choose.random() < 0.4:
            file.unlink(missing_ok=True)
        else:
            with file.open("wb", buffering=0) as target:
                for start in range(0, len(data), len(data) // 3):
                    target.write(data[start : start + len(data) // 3])
                    time.sleep(choose.choice((0.0, 0.01, 0.15)))
        signature.write(signature_of(file))
        time.sleep(choose.uniform(0.0, 0.4))


def _bytes(directory: Path, head: Head) -> bytes:
    path = directory / ".whole"
    head.save(path)
    data = path.read_bytes()
    path.unlink()
    return data


class Endurance:
    """root: an empty directory. seed: of what is written when, and of when servers are killed."""

    def __init__(self, root: Path, seed: int) -> None:
        self.directory, self.key, self.serials = root / "models", root / "key.pem", root / "serials.json"
        self.public = root / "public.pem"
        self.directory.mkdir()
        ed25519.make(self.key, "key")
        signer = ed25519.private(self.key, "key")
        self.public.write_bytes(ed25519.pem(signer.public_key()))
        for name in ("steady", "atomic"):
            head, file = version(name, 0), self.directory / f"{name}.head"
            head.save(file)
            Signature.make(signer, name, head.digest, 1).write(signature_of(file))
        self.known = {name: {version(name, n).digest: version(name, n) for n in range(VERSIONS)} for name in NAMES}
        self.choose, self.seed, self.endured = random.Random(seed), seed, Endured()
        self.rows = np.full((1, FEATURES), 0.3)
        self.newest: dict[str, int] = {}

    def run(self, kills: int) -> Endured:
        """Kill so many servers. Raises Inconsistent."""
        command = [sys.executable, "-m", __spec__.name, str(self.directory), str(self.key), str(self.seed)]
        with subprocess.Popen(command) as writer:
            try:
                for number in tqdm(range(kills), desc="killing servers", unit="server", leave=False, disable=None):
                    self._round(number)
                    if writer.poll() is not None:
                        raise Inconsistent("the writer ended")
            finally:
                writer.kill()
        return self.endured

    def _round(self, number: int) -> None:
        signed = bool(number % 2)
        # Planned in a process of its own, or in the server.
        options = ["--workers", str(number // 2 % 2), "--reload", _RELOAD, "--batches", "0", "--blinds-per-key", "0"]
        if signed:
            options += ["--model-signers", str(self.public), "--model-serials", str(self.serials)]
        self.endured.kills += 1
        if self.choose.random() < UNREADY:
            self._kill_unready(options)
        else:
            server = LocalServer(self.directory, *options)
            try:
                self._ask(server, signed)
            finally:
                server.process.send_signal(signal.SIGKILL)
                server.process.wait()
                self.endured.refused += sum(
                    "not served" in line or "stays" in line for line in server.log().splitlines()
                )
                server.stop()
        self._check_serials()

    def _kill_unready(self, options: list[str]) -> None:
        command = [sys.executable, "-m", "secure_infer.cli", "serve", "--models", str(self.directory), "--insecure"]
        command += ["--listen", "127.0.0.1:0", *options]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            time.sleep(self.choose.uniform(0.0, 2.0))
            server.send_signal(signal.SIGKILL)
        self.endured.unready += 1

    def _ask(self, server: LocalServer, signed: bool) -> None:
        expected = {"steady"} if signed else {"steady", "atomic"}
        if not expected <= set(server.models):
            raise Inconsistent(
                f"expected {sorted(expected)} to be served, got {server.models}: {server.ready['rejected']}"
            )
        end = time.monotonic() + self.choose.uniform(0.0, LONGEST)
        seen: dict[str, str] = {}
        while True:
            for name in self.choose.sample(NAMES, len(NAMES)):
                digest = self._answer(server.address, name)
                if digest is None and name in expected:
                    raise Inconsistent(f"{name} is served no more")
                if digest is not None:
                    self.endured.changes += seen.get(name, digest) != digest
                    seen[name] = digest
                    self.endured.answers[name] += 1
                if time.monotonic() > end and seen:
                    return

    def _answer(self, address: str, name: str) -> str | None:
        """The digest of the version that answered, rightly; None where none does."""
        with Client(address, model=name) as client:
            try:
                digest = client.spec.digest
                logits, bound = client.predict(self.rows), client.plan.error_bound
            except (UnknownModel, ModelChanged):
                return None
        head = self.known[name].get(digest)
        if head is None:
            raise Inconsistent(f"{name}: version {digest[:12]} was never written")
        if not np.abs(logits - head.evaluate(self.rows)).max() <= bound:
            raise Inconsistent(f"{name}: the answer is not that of version {digest[:12]}")
        return digest

    def _check_serials(self) -> None:
        serials = Serials(self.serials)  # whole, or it would be refused
        for name in NAMES:
            if serials.newest(name) < self.newest.get(name, 0):
                raise Inconsistent(f"{name}: serial {serials.newest(name)} after {self.newest[name]}")
            self.newest[name] = serials.newest(name)


def endure(kills: int, seed: int) -> Endured:
    """Kill so many servers while their models change; raises Inconsistent."""
    with TemporaryDirectory() as root:
        return Endurance(Path(root), seed).run(kills)


if __name__ == "__main__":  # the writer
    with contextlib.suppress(KeyboardInterrupt):
        write(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
