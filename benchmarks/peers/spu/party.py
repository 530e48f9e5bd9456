"""One party of SPU, a process of its own. Usage: python party.py PROTOCOL RANK PORT ADDRESS ADDRESS [ADDRESS]

connects to the client at PORT on loopback and answers its frames (wire.py); the addresses are the parties', by rank, and
SPU's own links run between them. Ends when standard input closes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Thread
from typing import Any

from spu import api, libspu  # type: ignore[import-not-found]

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from peers.wire import MODEL, TRIAL, connected, end_with_client, packed, receive, send, unpacked


def share(parts: list[bytes]) -> Any:
    """A share of one array, from what `bodies` of run.py made of it."""
    made = libspu.Share()
    made.meta, made.share_chunks = parts[0], parts[1:]
    return made


class Slice:
    """This party's part of the machine, with a model in it."""

    def __init__(self, link: Any, config: Any, model: list[bytes]) -> None:
        """model: the program, then of each array of weights its name and share."""
        self._program = libspu.Executable()
        self._program.ParseFromString(model[0])
        self._runtime = api.Runtime(link, config)
        for name, body in zip(model[1::2], model[2::2], strict=True):
            self._runtime.set_var(name.decode(), share(unpacked(body)))

    def answer(self, query: list[bytes]) -> bytes:
        """The share of the logits for a share of the row."""
        self._runtime.set_var("x", share(query))
        self._runtime.run(self._program)
        found = self._runtime.get_var("y")
        return packed([found.meta, *found.share_chunks])


def config(protocol: str, *, counted: bool = False) -> Any:
    """SPU's defaults, one thread; counted: it prints what went over its links in each run."""
    made = libspu.RuntimeConfig(protocol=getattr(libspu, protocol), field=libspu.FM64)
    made.max_concurrency = 1
    made.experimental_enable_intra_op_par = False
    made.enable_pphlo_profile = counted
    return made


def main(protocol: str, rank: str, port: str, *addresses: str) -> None:
    Thread(target=end_with_client, daemon=True).start()
    description = libspu.link.Desc()
    for number, address in enumerate(addresses):
        description.add_party(f"party{number}", address)
    description.recv_timeout_ms = 60_000
    with connected(port, rank) as client:
        link = libspu.link.create_brpc(description, int(rank))
        while True:
            kind, body = receive(client)
            if kind == MODEL:
                model = unpacked(body)
                machine = Slice(link.spawn(), config(protocol), model)
                counted = Slice(link.spawn(), config(protocol, counted=True), model)
                send(client, kind, b"")
            else:
                send(client, kind, (counted if kind == TRIAL else machine).answer(unpacked(body)))


if __name__ == "__main__":
    main(*sys.argv[1:])
