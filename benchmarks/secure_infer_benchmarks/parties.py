"""Servers of this machine's own with mutual TLS on every link: a dealer and two parties, on loopback or behind emulated links,
and one CKKS server."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from secure_infer.heads import Head
from secure_infer.mpc.program import Answers, Comparisons, Weights
from secure_infer.mpc.sharefile import share_model
from secure_infer_benchmarks.forwarder import Forwarder
from secure_infer_client import Client
from secure_infer_client.local_process import LocalProcess
from secure_infer_server.commands import certs

HOST = "127.0.0.1"


class Credentials(TypedDict):
    """A client's, as `Client` takes them: paths of PEM files."""

    root_certificates: str
    private_key: str
    certificate_chain: str


def credentials(pem: Mapping[str, Path]) -> Credentials:
    """Of the client for whom `certs.make` made certificates."""
    return {
        "root_certificates": str(pem["ca.pem"]),
        "private_key": str(pem["client.key"]),
        "certificate_chain": str(pem["client.pem"]),
    }


def server(directory: Path, heads: Mapping[str, Head], pem: Mapping[str, Path], *options: str) -> LocalProcess:
    """One CKKS server with mutual TLS that offers plans for single queries and answers in plaintext too. directory: made here,
    for the heads; options: further ones of `serve`."""
    directory.mkdir()
    for name, head in heads.items():
        head.save(directory / f"{name}.head")
    return LocalProcess(
        "the server",
        *("serve", "--models", str(directory), "--listen", f"{HOST}:0", "--plaintext-baseline", "--batches", "0"),
        *("--tls-cert", str(pem["server.pem"]), "--tls-key", str(pem["server.key"]), "--client-ca", str(pem["ca.pem"])),
        *options,
    )


@dataclass(frozen=True, eq=False)
class Served:
    """A head as the parties serve it, under `name`."""

    name: str
    head: Head
    weights: Weights = Weights.REPLICATED
    answers: Answers = Answers.LOGITS
    comparisons: Comparisons = Comparisons.TABLES

    @classmethod
    def named(cls, name: str, head: Head, weights: Weights, answers: Answers) -> Served:
        """Under a name of its own for each way to serve the head of that name."""
        shared = "-shared" if weights is Weights.SHARED else ""
        return cls(f"{name}{shared}{'-label' if answers is Answers.LABEL else ''}", head, weights, answers)


class Parties:
    """`secure-infer dealer` and two times `secure-infer party`, their certificates and models in a temporary folder.

    round_trip_ms, megabits: of every link (each party to the client, to the other and to the dealer), emulated by `Forwarder`;
    without a round trip the links are as loopback has them. rejected: by name, why a model is not served. pids: of the three
    processes, by role. Raises ServerUnavailable when a process does not start.
    """

    def __init__(
        self, served: Sequence[Served], round_trip_ms: float | None = None, megabits: float | None = None
    ) -> None:
        self._round_trip_ms, self._megabits = round_trip_ms, megabits
        self.pids: dict[str, int] = {}
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._pem = certs.make(folder / "certs", [HOST], "benchmark", days=2)
            directories = [folder / "party-0", folder / "party-1"]
            options = _lay_out(served, directories)
            dealer = self._far(stack, self._started(stack, "dealer").address)
            addresses = []
            peer = f"{HOST}:0"
            for number, directory in enumerate(directories):
                where = ("--id", str(number), "--models", str(directory), "--peer", peer, "--dealer", dealer)
                party = self._started(stack, f"party{number}", *where, *options)
                addresses.append(self._far(stack, party.address))
                peer = self._far(stack, str(party.ready["peer"])) if number == 0 else peer
                self.rejected = {str(name): str(reason) for name, reason in party.ready["rejected"].items()}
            self._addresses = addresses
            self._stop = stack.pop_all()

    def client(self, model: str) -> Client:
        """A client of both parties, with a certificate; the caller closes it."""
        return Client(
            self._addresses,
            model=model,
            scheme="mpc",
            **credentials(self._pem),
        )

    def __enter__(self) -> Parties:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.close()

    def _started(self, stack: ExitStack, role: str, *options: str) -> LocalProcess:
        process = LocalProcess(
            role,
            *(role.rstrip("01"), "--listen", f"{HOST}:0"),
            *("--tls-cert", str(self._pem[f"{role}.pem"]), "--tls-key", str(self._pem[f"{role}.key"])),
            *("--client-ca", str(self._pem["ca.pem"]), *options),
        )
        stack.callback(process.stop)
        self.pids[role] = process.process.pid
        return process

    def _far(self, stack: ExitStack, address: str) -> str:
        """The address, at the far end of an emulated link if there is to be one."""
        if self._round_trip_ms is None:
            return address
        return stack.enter_context(Forwarder(address, self._round_trip_ms, self._megabits)).address


def _lay_out(served: Sequence[Served], directories: Sequence[Path]) -> list[str]:
    """Write each party's model files; returns the parties' options for them."""
    options = []
    for directory in directories:
        directory.mkdir()
    for one in served:
        if one.weights is Weights.SHARED:
            share_model(one.head, directories, one.name, answers=one.answers, comparisons=one.comparisons)
            continue
        for directory in directories:
            one.head.save(directory / f"{one.name}.head")
        options += [f"--answers={one.name}={one.answers}", f"--comparisons={one.name}={one.comparisons}"]
    return options
