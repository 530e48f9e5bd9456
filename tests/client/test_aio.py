"""`AsyncClient` is `Client`, awaited: the same names, arguments, documentation and results."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import pickle
import threading
from typing import Any

import numpy as np
import pytest

from secure_infer.errors import InvalidInput, SettingsError
from secure_infer.heads import Head
from secure_infer_client import AsyncClient, Client
from shared import unit_rows

ASKED = {"spec", "plan", "label_only", "batch_plans", "offered"}
"""Properties of `Client` that may ask the server, and are methods here."""


def public(kind: type) -> dict[str, Any]:
    return {name: member for name, member in inspect.getmembers(kind) if not name.startswith("_")}


def test_the_names_are_the_same() -> None:
    assert public(Client).keys() == public(AsyncClient).keys()
    assert {name for name, member in public(Client).items() if isinstance(member, property)} == ASKED | {"last_call"}
    assert isinstance(AsyncClient.last_call, property)


@pytest.mark.parametrize("name", sorted(public(Client).keys() - ASKED - {"last_call"}))
def test_methods_take_the_same_and_are_awaited(name: str) -> None:
    ours, theirs = getattr(AsyncClient, name), getattr(Client, name)
    assert inspect.iscoroutinefunction(ours)
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert ours.__doc__ == theirs.__doc__
    assert ours.__doc__


@pytest.mark.parametrize("name", sorted(ASKED))
def test_properties_are_methods(name: str) -> None:
    ours, theirs = getattr(AsyncClient, name), getattr(Client, name)
    assert inspect.iscoroutinefunction(ours)
    assert list(inspect.signature(ours).parameters) == ["self"]
    assert inspect.signature(ours).return_annotation == inspect.signature(theirs.fget).return_annotation
    assert ours.__doc__ == theirs.__doc__
    assert ours.__name__ == name


def test_both_are_made_alike() -> None:
    assert inspect.signature(AsyncClient) == inspect.signature(Client)


def test_both_answer_alike(address: str, heads: dict[str, Head]) -> None:
    x = unit_rows(5, 8)
    task: contextvars.ContextVar[str] = contextvars.ContextVar("task")

    async def use() -> None:
        async with AsyncClient(address, model="small") as client:
            exact = heads["small"].evaluate(x)
            seen: list[Any] = []
            task.set("outer")
            logits = await client.predict(x, progress=lambda done: seen.append((done, task.get("none"))))
            assert np.abs(logits - exact).max() < 1e-3
            assert seen[-1] == (1.0, "outer")  # what a task has set is there on the thread, for records say
            assert await client.decide(x) == (await client.spec()).decide(exact)
            assert (await client.plan()).privacy == "both-private"
            assert not await client.label_only()
            assert (await client.offered()).offers
            assert isinstance(await client.batch_plans(), list)
            assert np.allclose(await client.evaluate_plaintext(x), exact)
            assert await client.rotate_keys() == 0
            assert client.last_call.stats.records == 5
            with pytest.raises(InvalidInput):
                await client.predict(x[0])
        with pytest.raises((SettingsError, RuntimeError)):
            await client.predict(x)

    asyncio.run(use())


def test_a_cancelled_task_leaves_the_client_in_order(address: str, heads: dict[str, Head]) -> None:
    x = unit_rows(1, 8)
    begun, go = threading.Event(), threading.Event()

    async def use() -> np.ndarray:
        async with AsyncClient(address, model="small") as client:
            await client.predict(x)

            def hold(done: float) -> None:
                begun.set()
                assert go.wait(20)

            task = asyncio.create_task(client.predict(x, progress=hold))
            while not begun.is_set():
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go.set()
            return await client.predict(x)

    assert np.abs(asyncio.run(use()) - heads["small"].evaluate(x)).max() < 1e-3


def test_neither_travels_to_another_process(address: str) -> None:
    with Client(address, model="small") as client, pytest.raises(SettingsError, match="make a new Client there"):
        pickle.dumps(client)

    async def use() -> None:
        async with AsyncClient(address, model="small") as client:
            with pytest.raises(SettingsError, match="make a new AsyncClient there"):
                pickle.dumps(client)

    asyncio.run(use())
