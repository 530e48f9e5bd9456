"""A server of this machine's own, as a separate process on loopback: for the demo and the benchmarks."""

from __future__ import annotations

from pathlib import Path

from secure_infer_client.local_process import LocalProcess


class LocalServer(LocalProcess):
    """`secure-infer serve` in a process of its own; `address` is where it listens.

    options: further command-line options of `serve`.
    """

    def __init__(self, models: Path, *options: str) -> None:
        listen = () if "--listen" in options else ("--listen", "127.0.0.1:0")
        super().__init__("the local server", "serve", "--models", str(models), *listen, "--insecure", *options)
        self.models = [str(name) for name in self.ready["models"]]
