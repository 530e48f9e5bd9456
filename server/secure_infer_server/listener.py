"""The port of a server on an event loop, for as long as the process serves.

gRPC's server for asyncio ends itself when something goes wrong in its loop (see `aioserver` for what callers can do): it takes
no more calls, and those under way go on. Another one takes its place, on the same port.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from secure_infer.errors import SettingsError

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05  # between two looks at whether it still serves
_Made = tuple[Any, str]


class Listener:
    """make: a server that is bound and not started, and its address; given that address, or None for the first. grace: seconds
    that calls have whose server has ended."""

    def __init__(self, make: Callable[[str | None], _Made], grace: float) -> None:
        self._make, self._grace = make, grace
        self._server: Any = None
        self._address = ""
        self._watching: asyncio.Task[None] | None = None
        self._ended: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        """Raises SettingsError when the address cannot be had."""
        self._server, self._address = self._make(None)
        await self._server.start()
        self._watching = asyncio.create_task(self._watch())
        return self._address

    async def release(self) -> Any:
        """The server that serves now, which is to be stopped; no other takes its place any more."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        return self._server

    async def _watch(self) -> None:
        while True:
            try:
                await self._server.wait_for_termination(LOOK_SECONDS)
            except Exception as error:  # what ended it
                log.error("the server ended itself (%s); another takes its place", type(error).__name__)
                ending = asyncio.create_task(self._server.stop(self._grace))
                self._ended.add(ending)
                ending.add_done_callback(self._ended.discard)
                await self._replace()

    async def _replace(self) -> None:
        while True:
            with suppress(SettingsError):  # the old one's port is not free yet
                self._server, _ = self._make(self._address)
                await self._server.start()
                return
            await asyncio.sleep(LOOK_SECONDS)
