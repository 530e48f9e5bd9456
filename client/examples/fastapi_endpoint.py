"""A FastAPI endpoint within the hospital: POST a text, get its chapter. Only ciphertext goes on to the model's server.

The endpoint sees texts, so it belongs on the trusted side, behind the hospital's own login. Needs `pip install fastapi uvicorn`.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from secure_infer import models
from secure_infer.errors import InvalidInput, SecureInferError
from secure_infer_client import AsyncClient
from secure_infer_client.local_server import LocalServer


class Note(BaseModel):
    text: str = Field(min_length=1, max_length=20_000)


class Chapter(BaseModel):
    label: str
    probability: float
    certain: bool
    ask_a_person: bool


def application(target: str, model: str) -> FastAPI:
    """One client for the life of the application: keys are made and uploaded once."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncClient(target, model=model) as client:
            app.state.client = client
            yield

    app = FastAPI(lifespan=life)

    @app.post("/classify")
    async def classify(note: Note) -> Chapter:
        try:
            (found,) = await app.state.client.classify([note.text])
        except InvalidInput:
            raise HTTPException(422, "the text cannot be read") from None  # errors hold no text, answers neither
        except SecureInferError as error:
            raise HTTPException(503, error.reason) from None
        return Chapter(
            label=found.label,
            probability=found.probability,
            certain=bool(found.certain),
            ask_a_person=found.abstain,
        )

    return app


def post(url: str, text: str) -> str:
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def main() -> None:
    with LocalServer(models.path()) as server:
        app = application(server.address, "icd10-chapter-linear")
        web = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
        thread = threading.Thread(target=web.run)
        thread.start()
        while not web.started:
            time.sleep(0.05)
        port = web.servers[0].sockets[0].getsockname()[1]
        try:
            sys.stdout.write(post(f"http://127.0.0.1:{port}/classify", "Acute appendicitis with perforation") + "\n")
        finally:
            web.should_exit = True
            thread.join()


if __name__ == "__main__":
    main()
