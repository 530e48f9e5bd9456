"""Key material on its way to a server: an upload that breaks goes on from where the server holds it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from secure_infer.ckks.plan import Plan
from secure_infer.errors import CallFailed, MalformedRequest, SecureInferError, ServerUnavailable
from secure_infer.v1 import keys_pb2, keys_pb2_grpc
from secure_infer_client import transport
from secure_infer_client.keys import Upload

CHUNK = 1 << 20
ATTEMPTS = 8
"""Calls that one upload may take; each has to bring it further."""


def upload_key(
    stub: keys_pb2_grpc.KeyServiceStub, model: str, plan: Plan, upload: Upload, target: str, timeout: float
) -> int:
    """Send a plan's key material; returns the bytes sent. timeout: seconds, of each call.

    The first call sends everything: asking first would cost every upload a round trip. Raises what the last call raised.
    """
    offset = sent = 0
    data = upload.data
    header = keys_pb2.KeyHeader(
        model=model, plan_digest=bytes.fromhex(plan.digest), key_digest=upload.digest, size=len(data)
    )

    def chunks() -> Iterator[keys_pb2.UploadKeysRequest]:
        nonlocal sent
        first = keys_pb2.KeyHeader()
        first.CopyFrom(header)
        first.offset = offset
        for start in range(offset, len(data), CHUNK) or (offset,):
            chunk = data[start : start + CHUNK]
            yield keys_pb2.UploadKeysRequest(header=first if start == offset else None, chunk=chunk)
            sent += len(chunk)

    for attempt in range(ATTEMPTS):
        try:
            transport.call(target, timeout, lambda: stub.UploadKeys(chunks(), timeout=timeout))
            return sent
        except (ServerUnavailable, CallFailed) as broken:
            held = _held(stub, header, target, timeout)
            if held <= offset or attempt == ATTEMPTS - 1:
                raise broken from None
        except MalformedRequest as refused:
            # The server holds less than it did: the upload idled too long, or another server has it now.
            held = int(refused.details.get("held", offset))
            if held >= offset or attempt == ATTEMPTS - 1:
                raise
        offset = held
    return sent


def _held(stub: keys_pb2_grpc.KeyServiceStub, header: keys_pb2.KeyHeader, target: str, timeout: float) -> int:
    """Bytes that the server holds; 0 when it does not say."""
    reference = keys_pb2.KeyReference(plan_digest=header.plan_digest, key_digest=header.key_digest)
    request = keys_pb2.GetUploadRequest(key=reference)
    try:
        return int(transport.call(target, timeout, lambda: stub.GetUpload(request, timeout=timeout)).held)
    except SecureInferError:
        return 0


def delete_keys(stub: keys_pb2_grpc.KeyServiceStub, pairs: Sequence[tuple[str, str]], timeout: float) -> int:
    """Have a server delete key material, given by plan digest and key digest (hex); returns how much of it was there."""
    keys = [keys_pb2.KeyReference(plan_digest=bytes.fromhex(p), key_digest=bytes.fromhex(k)) for p, k in pairs]
    return int(stub.DeleteKeys(keys_pb2.DeleteKeysRequest(keys=keys), timeout=timeout).deleted)
