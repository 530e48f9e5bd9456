"""A dealer and two parties as real processes over mutual TLS, to kill, to stop and to ask."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from secure_infer.heads import Head, ReLU
from secure_infer.mpc import sharefile
from secure_infer.mpc.program import Answers
from secure_infer_server.commands import certs
from server.mpc.raw_client import Client
from shared import hidden_head, linear_head, unit_rows

FEATURES = 24
WIDTHS = (FEATURES, 12, 5)


class Process:
    """One `secure-infer` process. `ready` is its ready line; `kill` and `start` again, on the same addresses."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self.arguments, self.log_file = arguments, log
        self.start()

    def start(self) -> None:
        with self.log_file.open("ab") as log:
            command = [sys.executable, "-m", "secure_infer.cli", *self.arguments]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.log()
        self.ready: dict[str, Any] = json.loads(line)
        self.arguments = tuple(self._settled())

    def _settled(self) -> Iterator[str]:
        """The arguments with the addresses that were picked."""
        picked = {"--listen": self.ready["address"], "--peer": self.ready.get("peer")}
        for before, argument in zip(("", *self.arguments), self.arguments, strict=False):
            yield str(picked.get(before) or argument)

    @property
    def address(self) -> str:
        return str(self.ready["address"])

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def log(self) -> str:
        return self.log_file.read_text()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Within the block, the process does not run."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # a signal takes its time
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """SIGTERM; returns the exit code."""
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        return self._process.returncode


class Deployment:
    """A dealer, parties 0 and 1, and their certificates. options: of both parties, or of one of them.

    heads: by name, with weights at both parties. shared: names of those that are served as "NAME-shared", too, with a share
    of the weights at each, and labels: as "NAME-label". prepare: changes both folders of models before anything starts.
    tap: where party 1 finds its peer, from where party 0 listens.
    """

    def __init__(
        self,
        directory: Path,
        heads: Mapping[str, Head],
        shared: Sequence[str] = (),
        labels: Sequence[str] = (),
        options: tuple[Sequence[str], Sequence[str]] = ((), ()),
        insecure: bool = False,
        prepare: Callable[[list[Path]], None] = lambda folders: None,
        tap: Callable[[str], str] = str,
    ) -> None:
        self.directory, self.insecure = directory, insecure
        self.certificates = {} if insecure else _certificates(directory / "certs")
        self.folders = [directory / f"models-{party}" for party in (0, 1)]
        for folder in self.folders:
            folder.mkdir()
            for name, head in heads.items():
                head.save(folder / f"{name}.head")
        self.heads = dict(heads)
        for name in shared:
            sharefile.share_model(heads[name], self.folders, f"{name}-shared")
            self.heads[f"{name}-shared"] = heads[name]
        for name in labels:
            sharefile.share_model(heads[name], self.folders, f"{name}-label", answers=Answers.LABEL)
            self.heads[f"{name}-label"] = heads[name]
        prepare(self.folders)
        self.processes: list[Process] = []
        self._clients: list[Client] = []
        try:
            self.dealer = self._process("dealer", "--listen", "127.0.0.1:0", *self.security("dealer"))
            self.parties = [self.party(0, "127.0.0.1:0", options[0])]
            self.parties.append(self.party(1, tap(str(self.parties[0].ready["peer"])), options[1]))
        except BaseException:
            self.end()
            raise

    def party(self, number: int, peer: str, options: Sequence[str] = ()) -> Process:
        return self._process(
            f"party{number}",
            *("--id", str(number), "--models", str(self.folders[number]), "--peer", peer),
            *("--dealer", self.dealer.address, "--listen", "127.0.0.1:0", *self.security(f"party{number}")),
            *("--metrics", "127.0.0.1:0", *options),
        )

    def security(self, name: str) -> list[str]:
        if self.insecure:
            return ["--insecure"]
        authority, key, chain = map(str, self.files(name))
        return ["--tls-cert", chain, "--tls-key", key, "--client-ca", authority]

    def files(self, name: str) -> tuple[Path, Path, Path]:
        return self.certificates["ca.pem"], self.certificates[f"{name}.key"], self.certificates[f"{name}.pem"]

    def client(self, name: str = "client") -> Client:
        made = Client([party.address for party in self.parties], None if self.insecure else self.files(name))
        self._clients.append(made)
        return made

    def _process(self, name: str, *arguments: str) -> Process:
        started = Process(self.directory / f"{name}.log", name.rstrip("01"), *arguments)
        self.processes.append(started)
        return started

    def right(self, client: Client, model: str, x: np.ndarray, found: np.ndarray) -> bool:
        """Whether an answer is that of the head in the clear, within the program's bound."""
        expected = self.heads[model].evaluate(x)
        _, program = client.program(model)
        if found.ndim == 2:
            return bool(np.abs(found - expected).max() <= program.error_bound)
        best = expected.max(axis=1) - expected[np.arange(len(x)), found]
        return bool((best <= 2 * program.error_bound).all())

    def works(self, client: Client, model: str, rows: int = 1, seconds: float = 5.0) -> bool:
        """One request; its answer, if one comes, has to be right."""
        x = unit_rows(rows, FEATURES, secrets.randbelow(1 << 30))
        found = client.evaluate(model, x, seconds)
        if isinstance(found, dict):
            return False
        assert self.right(client, model, x, found)
        return True

    def recovers(self, client: Client, models: Sequence[str], seconds: float = 20.0) -> float:
        """Ask until every model answers again; returns the seconds that it took."""
        started = time.monotonic()
        for model in models:
            while not self.works(client, model, seconds=2.0):
                assert time.monotonic() - started < seconds, self.logs()
                time.sleep(0.05)
        return time.monotonic() - started

    def fills(self, seconds: float = 20.0) -> None:
        """Wait until each of party 0's stores is more than half full; it is filled again when it is less."""
        started = time.monotonic()
        while not all(2 * held > wanted for held, wanted in self._levels()):
            assert time.monotonic() - started < seconds, self._levels()
            time.sleep(0.05)

    def _levels(self) -> list[tuple[float, float]]:
        """Bundles held and wanted, by model and rows."""
        with urllib.request.urlopen(f"http://{self.parties[0].ready['metrics']}/metrics") as page:
            lines = page.read().decode().splitlines()
        series = dict(line.rsplit(" ", 1) for line in lines if line.startswith("secure_infer_bundles"))
        held, wanted = (
            {k.partition("{")[2]: float(v) for k, v in series.items() if k.startswith(f"secure_infer_{name}{{")}
            for name in ("bundles", "bundles_wanted")
        )
        return [(held[labels], wanted[labels]) for labels in wanted]

    def logs(self) -> str:
        return "".join(f"--- {process.log_file.name}\n{process.log()}" for process in self.processes)

    def end(self) -> None:
        for client in self._clients:
            client.close()
        for process in reversed(self.processes):
            process.end()

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _certificates(directory: Path) -> dict[str, Path]:
    """Those of `secure-infer certs dev`; "other" is a second client's, ca.pem the authorities of both."""
    found = certs.make(directory, ["127.0.0.1"], "ward-7", 2)
    second = certs.make(directory / "second", ["127.0.0.1"], "ward-8", 2)
    found["ca.pem"].write_bytes(found["ca.pem"].read_bytes() + second["ca.pem"].read_bytes())
    return found | {"other.pem": second["client.pem"], "other.key": second["client.key"]}


def small_heads() -> dict[str, Head]:
    """A linear head, one with squares, one with ReLUs, for FEATURES features."""
    return {
        "linear": linear_head(FEATURES, 5),
        "square": hidden_head(WIDTHS),
        "relu": hidden_head(WIDTHS, ReLU()),
    }
