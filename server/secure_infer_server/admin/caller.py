"""The other end of administrative calls: an operator's machine. It holds no client's secrets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_status import rpc_status

from secure_infer import address as addresses
from secure_infer import pem
from secure_infer.errors import CallFailed, PermissionDenied, ServerUnavailable, SettingsError
from secure_infer.v1 import admin_pb2_grpc
from secure_infer.wire import status as wire_status
from secure_infer_server.callers.authenticator import AUTHORIZATION, CODE


@dataclass(frozen=True)
class Credentials:
    """PEM files and a bearer token. authority None: without TLS, which only loopback gets."""

    authority: Path | None = None
    key: Path | None = None
    certificate: Path | None = None
    token: str | None = None


class Administrator:
    """One server's AdminService."""

    def __init__(self, target: str, credentials: Credentials, timeout: float) -> None:
        """timeout: seconds of a call. Raises SettingsError for files that do not fit."""
        self._target, self._timeout = target, timeout
        self._metadata: list[tuple[str, str]] = []
        host, _ = addresses.parse(target, "--target")
        if credentials.authority is None:
            if not addresses.is_loopback(host) or credentials.token or credentials.key or credentials.certificate:
                raise SettingsError(
                    "--root-certificates: without TLS only loopback is asked, and nothing secret is sent"
                )
            self._channel = grpc.insecure_channel(target)
        else:
            self._channel = grpc.secure_channel(target, _channel_credentials(credentials))
            if credentials.token:
                self._metadata.append((AUTHORIZATION, f"Bearer {credentials.token}"))
        self._stub = admin_pb2_grpc.AdminServiceStub(self._channel)

    def call(self, request: Any, code: str) -> Any:
        """The answer to one of AdminService's requests. Raises what the server says, ServerUnavailable, CallFailed."""
        method = getattr(self._stub, type(request).__name__.removesuffix("Request"))
        try:
            return method(request, timeout=self._timeout, metadata=[*self._metadata, (CODE, code)])
        except grpc.RpcError as failed:
            raise self._named(failed) from None

    def _named(self, failed: Any) -> Exception:
        status = rpc_status.from_call(failed)
        known = None if status is None else wire_status.from_status(status)
        if known is not None:
            return known
        code = failed.code()
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return PermissionDenied(
                f"{self._target} takes no administrative calls: its configuration has no policy, or no second factor"
            )
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return ServerUnavailable(
                f"{self._target} did not answer within {self._timeout:g} s; is it up, and its TLS right?"
            )
        return CallFailed(f"{self._target} answered {code.name}")

    def __enter__(self) -> Administrator:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()


def _channel_credentials(credentials: Credentials) -> grpc.ChannelCredentials:
    if (credentials.key is None) != (credentials.certificate is None):
        raise SettingsError("--private-key and --certificate-chain go together; one is missing")
    authority = pem.certificates("--root-certificates", credentials.authority or "")
    pair = (None, None)
    if credentials.key is not None and credentials.certificate is not None:
        pair = pem.key_pair("--private-key", credentials.key, "--certificate-chain", credentials.certificate)  # type: ignore[assignment]
    return grpc.ssl_channel_credentials(authority, *pair)
