"""Unexpected exceptions: logged under an id, answered with that id; their text never leaves."""

from __future__ import annotations

import logging
import secrets

from secure_infer.errors import InternalFault


def unexpected(log: logging.Logger, where: str) -> InternalFault:
    """The error to answer with, for the exception that is being handled."""
    fault = secrets.token_hex(8)
    log.exception("fault %s in %s", fault, where)
    return InternalFault(f"the server failed; its log has the details under id {fault}", id=fault)
