"""Errors as google.rpc.Status with ErrorInfo, so that an error crosses the wire and arrives as itself."""

from __future__ import annotations

from google.rpc import code_pb2, error_details_pb2, status_pb2

from secure_infer.errors import CATALOGUE, SecureInferError

DOMAIN = "secure-infer"


def to_status(error: SecureInferError) -> status_pb2.Status:
    status = status_pb2.Status(code=code_pb2.Code.Value(error.status), message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.details)
    status.details.add().Pack(info)
    return status


def from_status(status: status_pb2.Status) -> SecureInferError | None:
    """The catalogued error, or None when the status does not carry one."""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN and info.reason in CATALOGUE:
            return CATALOGUE[info.reason](status.message, **dict(info.metadata))
    return None
