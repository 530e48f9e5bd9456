"""The servers under attack, as processes of this machine's own: everything a production configuration switches on, and beside
it the same without TLS, so that hostile bytes reach what a handshake would keep them from.

    ckks     mutual TLS, rules, tokens, budgets, audit log, keys on disk, workers
    open     the same models on insecure loopback, without a configuration
    dealer, party0, party1          mutual TLS, with roles
    loose-dealer, loose-party0, -1  on insecure loopback: party 0 waits for a peer that is hostile, party 1 finds one
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from secure_infer.errors import ServerUnavailable
from secure_infer_benchmarks.stress.hostile_layout import HOST, Address, Served, lay_out


class Process:
    """One `secure-infer` process; what it writes goes to NAME.out and NAME.log."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self.log, self.out = folder / f"{name}.log", folder / f"{name}.out"
        command = [sys.executable, "-m", "secure_infer.cli", *arguments]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            self.process.wait(10)
            raise ServerUnavailable(f"{name} did not start: {self.log.read_text()[-300:]}")
        self.out.write_text(line)
        self.ready: dict[str, Any] = json.loads(line)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


class Servers:
    """All of them, from when it is made to `stop`. peer: HOST:PORT where `loose-party1` looks for its party 0."""

    def __init__(self, folder: Path, peer: str) -> None:
        self.folder = folder
        self.processes: dict[str, Process] = {}
        self._more: dict[str, Address] = {}
        lay_out(folder)
        with ExitStack() as stack:
            self._stack = stack
            security = [self._tls(name) for name in ("dealer", "party0", "party1")]
            with ThreadPoolExecutor() as threads:
                starting = [
                    threads.submit(
                        self._serve, "ckks", "--config", str(folder / "server.toml"), "--keys", str(folder / "keys")
                    ),
                    threads.submit(self._serve, "open", *self._open()),
                    threads.submit(self._parties, "", security, None),
                    threads.submit(self._parties, "loose-", [["--insecure"]] * 3, peer),
                ]
            for started in starting:
                started.result()
            self._stop = stack.pop_all()

    @property
    def served(self) -> Served:
        addresses = {name: self._address(process) for name, process in self.processes.items()} | self._more
        return Served(self.folder, addresses, {name: p.process.pid for name, p in self.processes.items()})

    def alive(self) -> dict[str, bool]:
        return {name: process.process.poll() is None for name, process in self.processes.items()}

    def stop(self) -> None:
        self._stop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, name: str, *arguments: str) -> Process:
        made = self.processes[name] = Process(self.folder, name, *arguments)
        self._stack.callback(made.stop)
        return made

    def _serve(self, name: str, *arguments: str) -> None:
        switched_on = ("--workers", "1", "--open-inference", "--reflection", "--metrics", f"{HOST}:0")
        made = self._start(name, "serve", *arguments, *switched_on)
        self._more[f"{name} metrics"] = Address(str(made.ready["metrics"]), False)

    def _open(self) -> tuple[str, ...]:
        models = ("--models", str(self.folder / "models"))
        return (*models, "--listen", f"{HOST}:0", "--insecure", "--plaintext-baseline")

    def _parties(self, prefix: str, security: list[list[str]], elsewhere: str | None) -> None:
        """A dealer and two parties; elsewhere: where party 1 looks for its peer, None: at party 0."""
        listen, metrics = ("--listen", f"{HOST}:0"), ("--metrics", f"{HOST}:0")
        dealer = self._start(f"{prefix}dealer", "dealer", *listen, *metrics, *security[0])
        self._more[f"{prefix}dealer metrics"] = Address(str(dealer.ready["metrics"]), False)
        peer = f"{HOST}:0"
        for number in (0, 1):
            models = ("--id", str(number), "--models", str(self.folder / f"party-{number}"))
            where = ("--peer", peer, "--dealer", str(dealer.ready["address"]))
            party = self._start(
                f"{prefix}party{number}", "party", *models, *where, *listen, *metrics, *security[1 + number]
            )
            self._more[f"{prefix}party{number} metrics"] = Address(str(party.ready["metrics"]), False)
            if number == 0:
                peer = elsewhere or str(party.ready["peer"])
                self._more[f"{prefix}lane"] = Address(str(party.ready["peer"]), not prefix)

    def _tls(self, name: str) -> list[str]:
        pki = self.folder / "pki"
        return [
            "--tls-cert",
            str(pki / f"{name}.pem"),
            "--tls-key",
            str(pki / f"{name}.key"),
            "--client-ca",
            str(pki / "ca.pem"),
        ]

    def _address(self, process: Process) -> Address:
        return Address(str(process.ready["address"]), bool(process.ready["tls"]))
