"""An asyncio service: it takes a text a line over a socket and answers with a label a line.

All connections share one client. Texts that come while a call is under way are sent together in the next one.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial

from secure_infer import models
from secure_infer.errors import SecureInferError
from secure_infer_client import AsyncClient
from secure_infer_client.local_server import LocalServer

TEXTS = ["Acute appendicitis with perforation", "Fracture of the left femur", "Type 2 diabetes mellitus"]


async def serve(client: AsyncClient, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, until it ends."""
    while line := await reader.readline():
        try:
            (found,) = await client.classify([line.decode("utf-8", "replace")])
            answer = f"{found.label}\t{found.probability:.3f}"
        except SecureInferError as error:  # an empty line, a server that is away: this text's answer, and no other's
            answer = f"error: {error.reason}"
        writer.write(answer.encode() + b"\n")
        await writer.drain()
    writer.close()


async def ask(port: int, text: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.encode() + b"\n")
    answer = (await reader.readline()).decode().rstrip("\n")
    writer.close()
    return answer


async def run(address: str) -> None:
    async with AsyncClient(address, model="icd10-chapter-linear") as client:
        service = await asyncio.start_server(partial(serve, client), "127.0.0.1", 0)
        port = service.sockets[0].getsockname()[1]
        for answer in await asyncio.gather(*(ask(port, text) for text in [*TEXTS, " "])):
            sys.stdout.write(answer + "\n")
        service.close()


def main() -> None:
    with LocalServer(models.path()) as server:
        asyncio.run(run(server.address))


if __name__ == "__main__":
    main()
