"""That a process serves: a JSON line on stdout for whoever started it, a line in the log for who reads that later."""

from __future__ import annotations

import json
import logging
import os
import sys

from secure_infer import __version__

log = logging.getLogger(__name__)


def say(address: str, *, tls: bool, metrics: str | None, **more: object) -> None:
    """address: HOST:PORT of the calls. metrics: of the metrics, if served. more: besides, in the JSON line alone."""
    log.info("secure-infer %s serves at %s%s", __version__, address, "" if tls else ", without TLS")
    line = {"event": "ready", "address": address, "tls": tls, "metrics": metrics, **more, "pid": os.getpid()}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
