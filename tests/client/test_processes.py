"""Clients and processes: what a fork of a client may do, and what spawned processes do."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from secure_infer.heads import Head
from secure_infer_client import Client
from shared import unit_rows

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PARENT = """
import asyncio, os, sys
import multiprocessing
import numpy as np
from secure_infer.errors import SettingsError
from secure_infer_client import AsyncClient, Client, KeyRing
from secure_infer_client.providers import KeyFile

address, folder, how = sys.argv[1:]
ring = KeyRing(folder + "/ring", provider=KeyFile(folder + "/key"))
x = np.full((1, 8), 0.1)

def uses(client):
    try:
        client.predict(x)
    except SettingsError as problem:
        return problem.message
    return "answered"

def child():
    if how == "sync":
        said = uses(client)
        client.close()   # must neither wait nor take anything from the parent
    else:
        try:
            asyncio.run(client.predict(x))
            said = "answered"
        except SettingsError as problem:
            said = problem.message
    try:
        ring.names()
    except SettingsError as problem:
        said += " / " + problem.message
    sys.stdout.write(said + "\\n")
    sys.stdout.flush()

if how == "sync":
    client = Client(address, model="small", key_ring=ring)
    client.predict(x)
else:
    client = AsyncClient(address, model="small", key_ring=ring)
    asyncio.run(client.predict(x))
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(30)
if how == "sync":
    client.predict(x)
    client.close()
else:
    asyncio.run(client.predict(x))
    asyncio.run(client.close())
sys.stdout.write(f"parent goes on, child {process.exitcode}\\n")
"""


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_forked_child_is_told_and_the_parent_goes_on(address: str, tmp_path: Path, how: str) -> None:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_bytes(bytes(32))
    done = subprocess.run(
        [sys.executable, "-c", PARENT, address, tmp_path, how], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    child, parent = done.stdout.splitlines()
    assert "this client was made before a fork" in child
    assert "this key ring was made before a fork" in child
    assert parent == "parent goes on, child 0"


def ask(address: str) -> list[float]:
    with Client(address, model="small") as client:
        found: list[float] = client.predict(np.full((1, 8), 0.1))[0].tolist()
        return found


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_that_start_fresh_have_clients_of_their_own(
    address: str, heads: dict[str, Head], method: str
) -> None:
    x = np.full((1, 8), 0.1)
    with Client(address, model="small") as client:
        client.predict(unit_rows(1, 8))
        with multiprocessing.get_context(method).Pool(2) as pool:
            found = pool.map(ask, [address] * 2)
    assert np.abs(np.array(found) - heads["small"].evaluate(x)).max() < 1e-3
