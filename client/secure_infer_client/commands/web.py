"""`secure-infer web`: a page on this machine that shows one text on its way, step by step."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from typing import NoReturn

from secure_infer import models
from secure_infer.errors import SettingsError
from secure_infer_client.client import Client
from secure_infer_client.commands import connection
from secure_infer_client.transport import uses_tls
from secure_infer_client.web.api import Api
from secure_infer_client.web.pageserver import PageServer
from secure_infer_client.web.places import Local, Named, Place

_OF_A_TARGET = ("privacy", "root_certificates", "private_key", "certificate_chain", "token_file")


def run(arguments: list[str]) -> int:
    """Serve the page until interrupted; prints its address, or one JSON line."""
    parser = argparse.ArgumentParser(
        "secure-infer web",
        description=f"{__doc__} Without --target it starts a server, a dealer and two parties of its own.",
    )
    connection.add_options(parser, required=False)
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="without --target: heads to serve instead of the packaged ones"
    )
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="a loopback address (127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="0 takes a free one (0)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    options = parser.parse_args(arguments)
    _check(options)
    signal.signal(signal.SIGTERM, _interrupted)  # ends what was started, as Ctrl-C does
    with _page(options) as (server, place):
        url = server.door.url
        if options.json:
            ready = {
                "event": "ready",
                "url": url,
                "local": place.local,
                "models": list(place.models),
                "pid": os.getpid(),
            }
            connection.show([json.dumps(ready)])
        else:
            what = "a server and parties of its own" if place.local else ", ".join(options.target)
            connection.show([f"{url}", f"for this machine and whoever has the address; asks {what}; Ctrl-C ends it"])
        sys.stdout.flush()
        with _browser(url, wanted=not options.no_browser), suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0


def _check(options: argparse.Namespace) -> None:
    if not 0 <= options.port <= 65535:
        raise SettingsError(f"--port: expected 0 to 65535, got {options.port}")
    if options.key_ring is not None:
        raise SettingsError("--key-ring: the page makes keys of its own, for as long as it runs; leave it out")
    if options.target is None:
        given = [name for name in _OF_A_TARGET if getattr(options, name) is not None]
        if given:
            raise SettingsError(f"--{given[0].replace('_', '-')}: goes with --target, which is missing")
    elif options.models is not None:
        raise SettingsError("--models: the server at --target has its own; leave out one of the two")
    elif options.model is None:
        raise SettingsError("--target: give --model NAME as well")


@contextmanager
def _page(options: argparse.Namespace) -> Iterator[tuple[PageServer, Place]]:
    """The server, serving on a thread, and where queries go."""
    place = _named(options) if options.target else Local(options.models or models.path(), options.model)
    try:
        with PageServer(Api(place, scheme=options.scheme), options.host, options.port) as server:
            place.start()
            threading.Thread(target=server.serve_forever, name="page", daemon=True).start()
            try:
                yield server, place
            finally:
                server.shutdown()
    finally:
        place.close()


def _named(options: argparse.Namespace) -> Named:
    tls = any(uses_tls(target, options.root_certificates, options.private_key) for target in options.target)

    def make(targets: Sequence[str]) -> Client:
        return connection.client(argparse.Namespace(**{**vars(options), "target": list(targets)}))

    return Named(options.scheme, options.model, options.target, make, recorded=not tls)


@contextmanager
def _browser(url: str, *, wanted: bool) -> Iterator[None]:
    """Opens the page by a file of this user's own: other users see what commands are run with, and the address is secret."""
    if not wanted:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="secure-infer-") as directory:  # mode 700
        file = Path(directory) / "open.html"
        file.write_text(f'<!doctype html><meta http-equiv="refresh" content="0;url={escape(url)}">', encoding="utf-8")
        webbrowser.open(file.as_uri())
        yield


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt
