"""Fixtures of the attack tests: the helpers' folder on the path, and one real server for those that need a socket."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from adversary import Served, random_head

from secure_infer_client.local_server import LocalServer


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("models")
    head = random_head(16, 8, seed=11, embedder="adversary/words")
    head.save(directory / "target.head")
    with LocalServer(directory, "--blinds-per-key", "8") as server:
        yield Served(server.address, "target", head)
