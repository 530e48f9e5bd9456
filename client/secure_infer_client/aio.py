"""`AsyncClient`: the same client for asyncio. Each call runs on a thread; those that wait for their turn go together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import update_wrapper, wraps
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

from secure_infer.errors import SettingsError
from secure_infer_client.client import Client
from secure_infer_client.prediction import Call

THREADS = 64
"""Calls of one client under way or waiting at once; further ones wait for a thread."""

P = ParamSpec("P")
Result = TypeVar("Result")


def _awaited(
    method: Callable[Concatenate[Client, P], Result],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, Result]]:
    """A method of `Client`, awaited: its name, signature and documentation stay."""

    async def call(self: AsyncClient, /, *arguments: P.args, **named: P.kwargs) -> Result:
        return await self._on_a_thread(lambda: method(self._client, *arguments, **named))

    update_wrapper(call, method)
    return call


def _asked(name: str) -> Callable[[AsyncClient], Coroutine[Any, Any, Any]]:
    """A property of `Client` that may ask the server: a method here."""
    value = getattr(Client, name)

    async def call(self: AsyncClient) -> Any:
        return await self._on_a_thread(lambda: value.fget(self._client))

    call.__name__, call.__qualname__, call.__doc__ = name, f"AsyncClient.{name}", value.__doc__
    call.__annotations__["return"] = value.fget.__annotations__["return"]
    return call


def _made_like(
    made: Callable[Concatenate[Any, P], None],
) -> Callable[[Callable[..., None]], Callable[Concatenate[AsyncClient, P], None]]:
    return wraps(made)


class AsyncClient:
    """Takes `Client`'s arguments and has its methods, awaited; `spec`, the plans and what else may ask the server are methods.

    `progress` is called on the thread of the call. A task that is cancelled stops waiting; its call goes on to its end.
    """

    @_made_like(Client.__init__)
    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._client = Client(*arguments, **named)
        self._process = os.getpid()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="secure-infer-call")

    @property
    def last_call(self) -> Call:
        """Cost of the latest call of this client, of any task."""
        return self._client.last_call

    spec = _asked("spec")
    plan = _asked("plan")
    label_only = _asked("label_only")
    batch_plans = _asked("batch_plans")
    offered = _asked("offered")

    predict = _awaited(Client.predict)
    decide = _awaited(Client.decide)
    classify = _awaited(Client.classify)
    embed = _awaited(Client.embed)
    explain = _awaited(Client.explain)
    evaluate_plaintext = _awaited(Client.evaluate_plaintext)
    rotate_keys = _awaited(Client.rotate_keys)

    async def close(self) -> None:
        """Destroy the secret keys of this process and close the connections; what the key ring keeps stays there."""
        await self._on_a_thread(self._client.close)
        self._threads.shutdown(wait=False)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __reduce__(self) -> NoReturn:
        raise SettingsError("a client cannot be sent to another process; make a new AsyncClient there")

    async def _on_a_thread(self, call: Callable[[], Result]) -> Result:
        if self._process != os.getpid():  # a fork has none of its parent's threads: waiting for one would not end
            raise SettingsError("this client was made before a fork; make a new AsyncClient in the child process")
        context = copy_context()  # as `asyncio.to_thread` does
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: context.run(call))
