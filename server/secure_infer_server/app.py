"""One server process: ports, credentials, health, and an orderly end."""

from __future__ import annotations

import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from secure_infer import pem
from secure_infer.ckks.plan import MAX_ANSWER_BYTES
from secure_infer.errors import SettingsError
from secure_infer.v1 import inference_pb2, inference_pb2_grpc, keys_pb2, keys_pb2_grpc, models_pb2, models_pb2_grpc
from secure_infer_server.batches import Batches
from secure_infer_server.blinds import BlindPool
from secure_infer_server.dataplane import Dataplane
from secure_infer_server.keystore import KeyStore
from secure_infer_server.registry import Registry
from secure_infer_server.servicer import InferenceServicer, KeyServicer, ModelServicer
from secure_infer_server.settings import Settings, Tls

SERVICES = (
    models_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    keys_pb2.DESCRIPTOR.services_by_name["KeyService"].full_name,
    inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name,
)
THREADS = 16  # SEAL holds the interpreter lock: more threads only keep slow uploads from blocking queries
CONCURRENT_CALLS = 256
GRACE_SECONDS = 5.0
_SLACK = 64 << 10
_TAKEN = "cannot listen on {}: the port is in use, or the address is not this machine's"


class App:
    """A configured server. `start` listens, `heed_signals` and `wait` serve until SIGTERM or SIGINT, `stop` drains."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        _require_free(settings)  # now, and not after planning
        self.registry = Registry.load(settings)
        self.blinds = BlindPool(settings.blind_bytes, settings.blinds_per_key)
        keys = KeyStore(settings.key_bytes)
        dataplane = Dataplane(self.registry, keys, self.blinds)
        batches = Batches(self.registry, keys, settings.batches, settings.batch_bytes)
        models = [self.registry.get(name) for name in self.registry.names()]
        plans = [offered.plan for model in models for offered in model.offered.values()]
        largest = max((max(p.query_bytes, p.answer_bytes) * p.queries_per_call for p in plans), default=0)
        feature = max((b.plan.ciphertext_bytes for model in models for b in model.batches.values()), default=0)
        limit = max(largest, 2 << 20, feature) + _SLACK
        self.server = grpc.server(
            ThreadPoolExecutor(THREADS, thread_name_prefix="rpc"),
            maximum_concurrent_rpcs=CONCURRENT_CALLS,
            options=[
                ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a rival
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", max(limit, MAX_ANSWER_BYTES)),
            ],
        )
        models_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(dataplane), self.server)
        keys_pb2_grpc.add_KeyServiceServicer_to_server(KeyServicer(dataplane), self.server)
        inference = InferenceServicer(dataplane, batches, plaintext_baseline=settings.plaintext_baseline)
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(inference, self.server)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        self._ending = threading.Event()

    def start(self) -> str:
        """Listen and serve; returns "HOST:PORT". Raises SettingsError when the address cannot be had."""
        settings = self.settings
        wanted = f"{settings.host}:{settings.port}"
        credentials = None if settings.tls is None else _credentials(settings.tls)
        try:
            if credentials is None:
                port = self.server.add_insecure_port(wanted)
            else:
                port = self.server.add_secure_port(wanted, credentials)
        except RuntimeError:
            port = 0
        if not port:
            raise SettingsError(_TAKEN.format(wanted))
        self.blinds.start()
        self.server.start()
        for name in ("", *SERVICES):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return f"{settings.host}:{port}"

    def heed_signals(self) -> None:
        """From now on, SIGTERM or SIGINT ends `wait`; a second one ends the process at once. For the main thread."""

        def end(*_: object) -> None:
            if self._ending.is_set():
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.raise_signal(signal.SIGTERM)
            self._ending.set()

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)

    def wait(self) -> None:
        """Serve until a signal, then drain."""
        while not self._ending.wait(3600):
            pass
        self.stop()

    def stop(self) -> None:
        self._health.enter_graceful_shutdown()
        self.blinds.close()  # requests that are still under way make their own
        self.server.stop(GRACE_SECONDS).wait()


def _require_free(settings: Settings) -> None:
    """Raise SettingsError when the address is plainly taken; binding, later, has the last word."""
    if not settings.port:
        return
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        with socket.socket(found[0][0], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found[0][4])
    except OSError:
        raise SettingsError(_TAKEN.format(f"{settings.host}:{settings.port}")) from None


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    pair = pem.key_pair("--tls-key", tls.key, "--tls-cert", tls.certificate)
    authority = None if tls.client_ca is None else pem.certificates("--client-ca", tls.client_ca)
    return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)
