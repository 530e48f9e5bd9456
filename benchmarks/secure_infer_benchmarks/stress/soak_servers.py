"""The servers of a soak: one for CKKS with mutual TLS, callers, budgets, audit log and keys on disk; a dealer and two parties on
plain loopback. Each keeps its port over restarts."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from secure_infer.errors import ServerUnavailable
from secure_infer.heads import Head
from secure_infer_benchmarks.gate import AUDIT, BUDGETS, CALLERS, POLICY
from secure_infer_benchmarks.synthetic import square_head, unit_norm_head
from secure_infer_server.callers import authority
from secure_infer_server.commands import certs

CHEAP, HIDDEN = "cheap", "hidden"
ANSWERS = f"answer_bytes = {16 << 20}\n"
"""Of the budgets: a quarter of what is usual, so that the answers kept for identical requests are as many as they will be before
memory is looked at (`soak_watch`)."""
FEATURES = 384
CKKS, DEALER, PARTIES = "server", "dealer", ("party 0", "party 1")


def heads() -> dict[str, Head]:
    """What is served."""
    return {CHEAP: unit_norm_head(FEATURES, 10), HIDDEN: square_head(FEATURES, 64, 10)}


class Managed:
    """`secure-infer COMMAND`, started again by `start` after `end`; its log goes on in one file."""

    def __init__(self, name: str, folder: Path, command: Sequence[str]) -> None:
        self.name, self._command = name, list(command)
        self.log = folder / f"{name.replace(' ', '-')}.log"
        self.lock = threading.Lock()
        self.process: subprocess.Popen[str] | None = None
        self.starts = 0
        self.blinding: int | None = None

    @property
    def pid(self) -> int:
        return 0 if self.process is None else self.process.pid

    def start(self) -> None:
        """Raises ServerUnavailable where it does not come up."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "secure_infer.cli", *self._command],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            self.process.wait(10)
            said = self.log.read_text().strip().splitlines()[-1:]
            raise ServerUnavailable(f"{self.name} did not start: {said}")
        json.loads(line)
        self.starts += 1
        # The first that a server starts is the one that makes blinds.
        self.blinding = min(self.children(), default=None) if self.name == CKKS else None

    def end(self, how: signal.Signals) -> int | None:
        """Its exit status; None where it did not end within twenty seconds, and was killed."""
        if self.process is None:
            return 0
        self.process.send_signal(how)
        try:
            status: int | None = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = None
        if self.process.stdout:
            self.process.stdout.close()
        return status

    def children(self) -> list[int]:
        """Processes that it started, but for Python's own helper."""
        found = []
        for task in Path(f"/proc/{self.pid}/task").glob("*/children"):
            for child in map(int, task.read_text().split()):
                try:
                    command = Path(f"/proc/{child}/cmdline").read_bytes()
                except OSError:
                    continue
                if b"resource_tracker" not in command:
                    found.append(child)
        return found


class Fleet:
    """All of them, in a folder. targets: what clients connect to, by scheme. audit: the log's directory."""

    def __init__(self, folder: Path, *, mpc: bool = True) -> None:
        self.folder = folder
        models = folder / "models"
        models.mkdir()
        for name, head in heads().items():
            head.save(models / f"{name}.head")
        (folder / "policy.toml").write_text(POLICY.replace("anonymous", "cn:soak*"))
        (folder / "config.toml").write_text(CALLERS + BUDGETS + ANSWERS + AUDIT)
        server, dealer, one, two, link = (f"127.0.0.1:{port}" for port in _free(5))
        pem = certs.make(folder / "certs", ["127.0.0.1"], "soak", days=2)
        tls = ("--tls-cert", "server.pem", "--tls-key", "server.key", "--client-ca", "ca.pem")
        plain = ("--models", str(models), "--insecure")
        config, keys = str(folder / "config.toml"), str(folder / "keys")
        commands: dict[str, Sequence[str]] = {
            CKKS: (
                *(
                    "serve",
                    "--models",
                    str(models),
                    "--listen",
                    server,
                    "--config",
                    config,
                    "--keys",
                    keys,
                    "--workers",
                    "2",
                ),
                *(str(pem[option]) if option in pem else option for option in tls),
            ),
        }
        if mpc:
            commands[DEALER] = ("dealer", "--listen", dealer, "--insecure")
            for number, (name, listen) in enumerate(zip(PARTIES, (one, two), strict=True)):
                others = ("--peer", link, "--dealer", dealer)
                commands[name] = ("party", "--id", str(number), "--listen", listen, *plain, *others)
        self.managed = {name: Managed(name, folder, command) for name, command in commands.items()}
        self.targets = {"ckks": server, "mpc": (one, two)}
        self.audit = folder / "log"
        self._certificates = folder / "certs"

    def identity(self, name: str) -> dict[str, bytes]:
        """The arguments of a client with a certificate in that name, new each time."""
        ca, key = authority.read_authority(self._certificates), authority.new_key()
        certificate = ca.sign("client", f"soak-{name}", [], key.public_key(), days=1)
        return {
            "root_certificates": authority.certificate_pem(ca.certificate),
            "private_key": authority.key_pem(key),
            "certificate_chain": authority.certificate_pem(certificate),
        }

    def __enter__(self) -> Self:
        try:
            for managed in self.managed.values():
                managed.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for managed in reversed(self.managed.values()):
            if managed.process is not None and managed.process.poll() is None:
                managed.end(signal.SIGTERM)


def _free(count: int) -> list[int]:
    """Ports that nobody listens on just now."""
    held = [socket.socket() for _ in range(count)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in held]
    for each in held:
        each.close()
    return ports
