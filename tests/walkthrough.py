"""A document's shell and Python, executed in order as they stand. Ports are replaced by free ones; nothing else is changed."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

PROCESSES = ("serve", "party", "dealer")
"""Commands that go on: they are waited for until they are ready, and ended with the document."""

_BLOCK = re.compile(r"```(python|sh)\n(.*?)```", re.DOTALL)
_ADDRESS = re.compile(r"127\.0\.0\.1:\d+")


def executed(text: str) -> list[str]:
    """What each Python block and each command printed, processes that go on apart."""
    return list(_steps(text))


def _steps(text: str) -> Iterator[str]:
    scope: dict[str, Any] = {}
    addresses: dict[str, str] = {}
    with ExitStack() as stack:
        for language, block in _BLOCK.findall(text):
            if language == "python":
                block = _ADDRESS.sub(lambda found: addresses[found[0]], block)
                with contextlib.redirect_stdout(io.StringIO()) as printed:
                    exec(compile(block, "document", "exec"), scope)
                yield printed.getvalue()
                continue
            for line in block.strip().splitlines():
                words = shlex.split(line)
                assert words[0] == "secure-infer", line
                if words[1] in PROCESSES:
                    _start(words, addresses, stack)
                    continue
                words = [_ADDRESS.sub(lambda found: addresses[found[0]], word) for word in words]
                done = subprocess.run(_command(words), capture_output=True, text=True, timeout=240)
                assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
                yield done.stdout


def _start(words: list[str], addresses: dict[str, str], stack: ExitStack) -> None:
    place = words.index("--listen") + 1
    listen = words[place]
    words = [_ADDRESS.sub(lambda found: addresses.get(found[0]) or _free(found[0], addresses), word) for word in words]
    words[place] = "127.0.0.1:0"
    started = stack.enter_context(
        subprocess.Popen(_command(words), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    )
    stack.callback(started.terminate)
    assert started.stdout is not None
    addresses[listen] = json.loads(started.stdout.readline())["address"]


def _free(wanted: str, addresses: dict[str, str]) -> str:
    """For links that have to be named before they are there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        addresses[wanted] = f"127.0.0.1:{taken.getsockname()[1]}"
    return addresses[wanted]


def _command(words: list[str]) -> list[str]:
    return [sys.executable, "-m", "secure_infer.cli", *words[1:]]
