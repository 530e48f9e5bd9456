"""A dealer and two parties of this machine's own, as separate processes on loopback: for the demo and the benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from secure_infer_client.local_process import LocalProcess

LOCAL = ("--listen", "127.0.0.1:0", "--insecure")


class LocalParties:
    """`secure-infer dealer` and two times `secure-infer party`; `addresses` is the target of a client.

    models: a directory for both, or one for each, as shared weights take. options: further ones of both parties.
    `dealer` and `parties` are the processes, each with its log.
    """

    def __init__(self, models: Path | Sequence[Path], *options: str) -> None:
        directories = [models, models] if isinstance(models, Path) else list(models)
        with ExitStack() as started:
            self.dealer = LocalProcess("the dealer", "dealer", *LOCAL)
            started.callback(self.dealer.stop)
            self.parties: list[LocalProcess] = []
            peer = "127.0.0.1:0"
            for number, directory in enumerate(directories):
                party = LocalProcess(
                    f"party {number}",
                    *("party", "--id", str(number), "--models", str(directory)),
                    *("--peer", peer, "--dealer", self.dealer.address, *LOCAL, *options),
                )
                started.callback(party.stop)
                self.parties.append(party)
                peer = str(party.ready["peer"])
            self._stop = started.pop_all()
        self.addresses = (self.parties[0].address, self.parties[1].address)
        self.models = [str(name) for name in self.parties[0].ready["models"]]

    def log(self) -> str:
        """What all three wrote to stderr so far."""
        named = zip(("dealer", "party 0", "party 1"), (self.dealer, *self.parties), strict=True)
        return "".join(f"{name}: {line}\n" for name, process in named for line in process.log().splitlines())

    def stop(self) -> None:
        """End the parties, then the dealer."""
        self._stop.close()

    def __enter__(self) -> LocalParties:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
