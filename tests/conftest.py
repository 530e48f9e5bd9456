"""Heads and servers that many tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from secure_infer.heads import Head, Polynomial, ReLU
from secure_infer_client.local_server import LocalServer
from shared import hidden_head, linear_head

# Machines are shared: an example that takes long is no failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def heads() -> dict[str, Head]:
    """The heads of the shared server, by name; the last two cannot be evaluated under encryption."""
    return {
        "small": linear_head(8, 3),
        "wide": linear_head(384, 21, scale=17.0),
        "binary": linear_head(30, 1, bound=6.0, norm=None),
        "public": linear_head(8, 3, seed=5),
        "hidden": hidden_head((600, 4, 2)),
        "quintic": hidden_head((8, 5, 2), Polynomial([0.1, 1.0, 0.2, 0.0, 0.0, 0.01])),
        "relu": hidden_head((8, 5, 2), ReLU()),
    }


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory, heads: dict[str, Head]) -> Path:
    """A directory with those heads and one corrupt file."""
    directory = tmp_path_factory.mktemp("models")
    for name, head in heads.items():
        head.save(directory / f"{name}.head")
    (directory / "corrupt.head").write_bytes((directory / "small.head").read_bytes()[:-3])
    return directory


@pytest.fixture(scope="session")
def server(models_dir: Path) -> Iterator[LocalServer]:
    """One real server process for the whole session; `public` is served input-private."""
    with LocalServer(models_dir, "--plaintext-baseline", "--privacy", "public=input-private") as running:
        yield running


@pytest.fixture
def address(server: LocalServer) -> str:
    return server.address
