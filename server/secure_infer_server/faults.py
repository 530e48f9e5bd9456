"""Unexpected exceptions: logged under an id, answered with that id; their text never leaves."""

from __future__ import annotations

import logging
import secrets

from secure_infer.errors import InternalFault, SecureInferError
from secure_infer_server.observe import calls


def unexpected(log: logging.Logger, where: str) -> InternalFault:
    """The error to answer with, for the exception that is being handled."""
    fault = secrets.token_hex(8)
    calls.current().fault = fault
    log.exception("fault in %s", where, extra={"fault": fault})
    return InternalFault(f"the server failed; its log has the details under id {fault}", id=fault)


def failed(log: logging.Logger, where: str, error: SecureInferError) -> None:
    """Log an error that a call ends in, where it is a fault of the server's that came from elsewhere: of a worker, say, whose
    log has more under the same id."""
    if isinstance(error, InternalFault):
        calls.current().fault = fault = error.details.get("id", "")
        log.error("%s failed: %s", where, error.message, extra={"fault": fault})
