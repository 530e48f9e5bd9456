"""`AsyncClient`: the same client for asyncio; each call runs on a worker thread, in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.heads import ModelSpec
from secure_infer_client.batches import Progress, nothing
from secure_infer_client.choice import Offered
from secure_infer_client.client import Client
from secure_infer_client.prediction import Call, Explanation, Prediction


class AsyncClient:
    """Takes `Client`'s arguments and has its methods, awaited; `spec` and the plans may ask the server, so they are methods."""

    def __init__(self, target: str | Sequence[str], **arguments: Any) -> None:
        self._client = Client(target, **arguments)

    @property
    def last_call(self) -> Call:
        return self._client.last_call

    async def spec(self) -> ModelSpec:
        return await asyncio.to_thread(lambda: self._client.spec)

    async def plan(self) -> Any:
        return await asyncio.to_thread(lambda: self._client.plan)

    async def label_only(self) -> bool:
        return await asyncio.to_thread(lambda: self._client.label_only)

    async def batch_plans(self) -> list[BatchPlan]:
        return await asyncio.to_thread(lambda: self._client.batch_plans)

    async def offered(self) -> Offered:
        return await asyncio.to_thread(lambda: self._client.offered)

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return await asyncio.to_thread(self._client.embed, texts)

    async def predict(self, x: Any, *, progress: Progress = nothing) -> NDArray[np.float64]:
        """As `Client.predict`; `progress` is called on the worker thread."""
        return await asyncio.to_thread(self._client.predict, x, progress=progress)

    async def decide(self, x: Any, *, progress: Progress = nothing) -> list[str]:
        """As `Client.decide`; `progress` is called on the worker thread."""
        return await asyncio.to_thread(self._client.decide, x, progress=progress)

    async def classify(self, texts: Sequence[str], *, progress: Progress = nothing) -> list[Prediction]:
        """As `Client.classify`; `progress` is called on the worker thread."""
        return await asyncio.to_thread(self._client.classify, texts, progress=progress)

    async def explain(self, text: str) -> Explanation:
        return await asyncio.to_thread(self._client.explain, text)

    async def evaluate_plaintext(self, x: Any) -> NDArray[np.float64]:
        return await asyncio.to_thread(self._client.evaluate_plaintext, x)

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
