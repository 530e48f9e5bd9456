"""A gRPC server of one process: its address, mutual TLS, health, errors as statuses, and an orderly end.

Knows nothing of what is served, and loads nothing of what evaluates: a dealer is one, and so can be a party.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from secure_infer.address import is_loopback
from secure_infer.errors import CallFailed, SecureInferError, SettingsError
from secure_infer.wire import status as wire_status
from secure_infer_server.callers.credentials import InForce, server_credentials
from secure_infer_server.faults import failed, unexpected
from secure_infer_server.messages import Careful
from secure_infer_server.mpc.roles import Role
from secure_infer_server.observe.calls import Watch
from secure_infer_server.observe.health import LIVENESS, READINESS, STATUS
from secure_infer_server.process import DRAIN_SECONDS, Ending, Underway, bound, drain
from secure_infer_server.tls import Tls

log = logging.getLogger(__name__)

UNWATCHED = Watch()
KEEPALIVE = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
"""Channel options of both ends of a long stream: a machine that vanished is noticed within 15 s."""


@dataclass(frozen=True)
class Identity:
    """PEM files of one process among those that authenticate each other: its certificate, whose role is checked, its key, and
    the authority of all of them."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True)
class Listening:
    """Where a process listens, and as whom; identity None: without TLS, on loopback alone. drain: seconds that calls under way
    have once it is to end. role: that of its own certificate, renewed ones too."""

    host: str
    port: int
    identity: Identity | None
    drain: float = DRAIN_SECONDS
    role: Role | None = None

    def __post_init__(self) -> None:
        if self.identity is None and not is_loopback(self.host):
            raise SettingsError(
                f"--insecure serves loopback only, got {self.host}; any other address needs --tls-cert, --tls-key and --client-ca"
            )

    @property
    def tls(self) -> Tls | None:
        """The identity, as other parts of a server know it."""
        identity = self.identity
        return None if identity is None else Tls(identity.certificate, identity.key, identity.authority)


class Endpoint:
    """A gRPC server. Add servicers of generated code to `services`, then `start`, and `heed_signals` and `wait` or `stop`.
    `underway` is to be told of calls: without one, it ends at once."""

    def __init__(
        self,
        listening: Listening,
        services: Sequence[str],
        *,
        threads: int,
        calls: int,
        limit: int,
        admits: Callable[[], bool] = lambda: True,
    ) -> None:
        """services: their full names, for health. calls: at once. limit: bytes of one message received. admits: whether calls
        can be taken at all, by what lies behind it."""
        self._listening, self._services, self._admits = listening, services, admits
        self.server = grpc.server(
            ThreadPoolExecutor(threads, thread_name_prefix="rpc"),
            maximum_concurrent_rpcs=calls,
            options=[
                ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a rival
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", -1),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                *KEEPALIVE,
            ],
        )
        self._health = health.HealthServicer()
        self.services = Careful(self.server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.services)
        self.underway, self._ending, self.certificate = Underway(), Ending(), InForce()
        self._serving = False
        self._told_ready: bool | None = None

    def start(self) -> str:
        """Listen and serve; returns "HOST:PORT". Raises SettingsError when the address cannot be had."""
        host, identity = self._listening.host, self._listening.identity
        credentials = None
        if identity is not None:
            files = (identity.certificate, identity.key, identity.authority)
            credentials = server_credentials(*files, self.certificate, self._listening.role)
        address = bound(self.server, host, self._listening.port, credentials)
        self.server.start()
        self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        self._serving = True
        self._tell()
        return address

    def ready(self) -> bool:
        """Whether calls are taken."""
        return self._serving and self._admits()

    def heed_signals(self) -> None:
        """As `Ending.heed_signals`."""
        self._ending.heed_signals()

    def wait(self) -> None:
        """Serve until a signal."""
        self._ending.wait(self._tell)

    def stop(self) -> None:
        """Drain: no new calls, and those under way have `Listening.drain` seconds."""
        self._serving = False
        self._tell()
        drain(self.server, self.underway, self._listening.drain)

    def _tell(self) -> None:
        """Health checks learn what changed."""
        ready = self.ready()
        if ready != self._told_ready:
            self._told_ready = ready
            for name in ("", READINESS, *self._services):
                self._health.set(name, STATUS[ready])


@contextmanager
def errors_answered(name: str, context: grpc.ServicerContext, watch: Watch = UNWATCHED) -> Iterator[None]:
    """Catalogued errors become statuses, anything else an id in the log: its text never leaves. name: "Service/Method". watch:
    is told of the call."""
    call = watch.begin(name, context)
    known: SecureInferError | None = None
    try:
        yield
        return
    except SecureInferError as error:
        failed(log, name, error)
        known = error
    except grpc.RpcError:  # the caller went away while it was sending
        known = CallFailed("the call was cancelled, or took too long")
    except Exception:
        known = unexpected(log, name)
    finally:
        watch.end(call, "" if known is None else known.reason)
    context.abort_with_status(rpc_status.to_status(wire_status.to_status(known)))
