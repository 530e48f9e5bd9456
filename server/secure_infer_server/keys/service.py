"""KeyService without gRPC: messages in, messages out. `servicer` serves it on an event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol

from secure_infer.ckks.plan import Plan
from secure_infer.errors import MalformedRequest, PermissionDenied, ResourceExhausted
from secure_infer.v1 import keys_pb2
from secure_infer_server.keys.names import KeyName
from secure_infer_server.keys.ready import Ready
from secure_infer_server.keys.screening import check_material
from secure_infer_server.keys.vault import KeyVault, Upload

UPLOADS = 6
"""Under way at once in one server; more are told to ask again."""
UPLOAD_SECONDS = 20.0
UPLOAD_RATE = 1 << 20
"""An upload may take `UPLOAD_SECONDS`, and as long as its bytes take at this rate, in bytes a second."""
MIN_UPLOAD = 16 << 20
"""Bytes read before a wrong size is refused, so that a secret key sent by mistake is named."""
MAX_REFERENCES = 1024

PlanOf = Callable[[str, bytes], Plan]
"""The plan of a model by its digest; raises UnknownModel or PlanRefused."""

Stored = Callable[[str, Plan, KeyName, Ready], None]
"""Told the model, the plan, the name and the loaded key after each upload that made a key."""


class Receiving(Protocol):
    """One call's upload, chunk by chunk. seconds: it may take, from its header on."""

    seconds: float

    def take(self, message: keys_pb2.UploadKeysRequest) -> None:
        """The next message, the first one too; raises MalformedRequest or SecretKeyReceived."""

    def hold(self) -> None:
        """The call broke: keep what came, where the upload may go on."""

    def finish(self) -> keys_pb2.UploadKeysResponse:
        """All messages came. Raises MalformedRequest, SecretKeyReceived, ResourceExhausted."""


class KeyCalls(Generic[Ready]):
    """Every method may wait for a disk or a network. owner: the identity that the caller authenticated."""

    def __init__(self, vault: KeyVault[Ready], plan_of: PlanOf, stored: Stored[Ready]) -> None:
        self._vault, self._plan_of, self._stored = vault, plan_of, stored
        self._places = threading.BoundedSemaphore(UPLOADS)

    @contextmanager
    def place(self) -> Iterator[None]:
        """While entered, one upload is under way; raises ResourceExhausted when it may not be. Waits for nothing."""
        if not self._places.acquire(blocking=False):
            raise ResourceExhausted(f"{UPLOADS} uploads are under way; ask again shortly", again="shortly")
        try:
            yield
        finally:
            self._places.release()

    def receive(self, owner: str, header: keys_pb2.KeyHeader) -> Receiving:
        """An upload's other end, once its header is there."""
        plan = self._plan_of(header.model, header.plan_digest)
        if not plan.key_bytes:
            raise MalformedRequest("public key: this plan takes none")
        most = max(MIN_UPLOAD, plan.key_bytes)
        if header.size > most:
            raise ResourceExhausted(f"public key: {header.size} bytes announced; at most {most} are taken")
        if header.size != plan.key_bytes:
            return _Misfit(plan, header)
        upload = self._vault.begin(owner, header.model, plan, header.key_digest, header.size, header.offset)
        return _Kept(upload, header, lambda keys: self._stored(header.model, plan, upload.name, keys))

    def get_upload(self, owner: str, request: keys_pb2.GetUploadRequest) -> keys_pb2.GetUploadResponse:
        held, complete = self._vault.progress(owner, request.key.plan_digest, request.key.key_digest)
        return keys_pb2.GetUploadResponse(held=held, complete=complete)

    def list_keys(self, owner: str) -> keys_pb2.ListKeysResponse:
        """Raises PermissionDenied where callers are not told apart."""
        _require_identity(owner)
        return keys_pb2.ListKeysResponse(
            keys=[
                keys_pb2.HeldKey(
                    key=keys_pb2.KeyReference(plan_digest=key.name.plan, key_digest=key.name.digest),
                    model=key.model,
                    size=key.size,
                    created=int(key.created),
                    used=int(key.used),
                )
                for key in self._vault.held(owner)
            ]
        )

    def delete_keys(self, owner: str, request: keys_pb2.DeleteKeysRequest) -> keys_pb2.DeleteKeysResponse:
        """Raises PermissionDenied where callers are not told apart, MalformedRequest."""
        _require_identity(owner)
        if request.all == bool(request.keys) or len(request.keys) > MAX_REFERENCES:
            raise MalformedRequest(
                f"delete: expected `all` or 1 to {MAX_REFERENCES} keys, got {len(request.keys)} keys"
            )
        names = None if request.all else [(key.plan_digest, key.key_digest) for key in request.keys]
        return keys_pb2.DeleteKeysResponse(deleted=self._vault.delete(owner, names))


def header_of(first: keys_pb2.UploadKeysRequest) -> keys_pb2.KeyHeader:
    """The header on an upload's first message; raises MalformedRequest."""
    if not first.HasField("header"):
        raise MalformedRequest("public key: expected a header on the first chunk")
    return first.header


def _require_identity(owner: str) -> None:
    if not owner:
        raise PermissionDenied("keys are listed and deleted for callers with an identity; this server tells none apart")


class _Kept(Generic[Ready]):
    """An upload of the right size: what came stays. A cancelled call's thread may still take a chunk: hence the lock."""

    def __init__(self, upload: Upload[Ready], header: keys_pb2.KeyHeader, stored: Callable[[Ready], None]) -> None:
        self._upload, self._digest, self._stored = upload, header.key_digest, stored
        self._lock = threading.Lock()
        self.seconds = UPLOAD_SECONDS + (header.size - header.offset) / UPLOAD_RATE

    def take(self, message: keys_pb2.UploadKeysRequest) -> None:
        if not message.chunk and not message.HasField("header"):
            raise MalformedRequest("public key: got an empty chunk")
        with self._lock:
            self._upload.append(message.chunk)

    def hold(self) -> None:
        with self._lock:
            self._upload.hold()

    def finish(self) -> keys_pb2.UploadKeysResponse:
        with self._lock:
            keys = self._upload.finish()
        if keys is not None:
            self._stored(keys)
        return keys_pb2.UploadKeysResponse(key_digest=self._digest)


class _Misfit:
    """An upload of any other size: collected in memory, to be told from a secret key, and refused."""

    def __init__(self, plan: Plan, header: keys_pb2.KeyHeader) -> None:
        self._plan, self._size, self._data = plan, header.size, bytearray()
        self.seconds = UPLOAD_SECONDS + header.size / UPLOAD_RATE

    def take(self, message: keys_pb2.UploadKeysRequest) -> None:
        if len(self._data) + len(message.chunk) > self._size or not (message.chunk or message.HasField("header")):
            raise MalformedRequest(f"public key: {self._size} bytes announced, got an empty chunk or more than that")
        self._data += message.chunk

    def hold(self) -> None:
        self._data.clear()

    def finish(self) -> keys_pb2.UploadKeysResponse:
        if len(self._data) != self._size:
            raise MalformedRequest(f"public key: {self._size} bytes announced, got {len(self._data)}")
        check_material(self._plan, bytes(self._data))
        raise MalformedRequest(f"public key: expected {self._plan.key_bytes} bytes, got {self._size}")
