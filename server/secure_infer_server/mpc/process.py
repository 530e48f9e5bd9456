"""One party as a process: its models, its stores, its lanes to the other party, and the port for clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from secure_infer.v1 import models_pb2_grpc, mpc_pb2_grpc
from secure_infer_server.admin.books import Books
from secure_infer_server.admin.service import SERVICE as ADMIN
from secure_infer_server.admin.service import AdminCalls
from secure_infer_server.admin.servicer import handlers as admin_handlers
from secure_infer_server.admin.versions import WatchedModels
from secure_infer_server.gate import Gate, OpenGate
from secure_infer_server.models.model import digests, require_messages_fit
from secure_infer_server.models.settings import ReloadSettings
from secure_infer_server.mpc.endpoint import Endpoint, Identity, Listening
from secure_infer_server.mpc.follower import FollowerLanes
from secure_infer_server.mpc.halves import MAX_UNDER_WAY
from secure_infer_server.mpc.leader import LeaderLanes
from secure_infer_server.mpc.models import PartyModel, PartyModels, PartyPolicy
from secure_infer_server.mpc.party import Follower, Leader, Party
from secure_infer_server.mpc.serving import SERVICES, PartyModelServicer, PartyServicer
from secure_infer_server.mpc.stores import CAPACITY, Stores
from secure_infer_server.observe.calls import Observer, Watch
from secure_infer_server.observe.gate import NotingGate

CALLS = MAX_UNDER_WAY + 64
"""At once: requests, and the models and health that are asked for beside them."""
THREADS = CALLS
"""A half keeps its thread until it is answered. With fewer threads than halves, those of some requests could take all of
one party's and those of others all of the other's, and wait for each other."""
LEAST_MESSAGE = 2 << 20
_SLACK = 64 << 10


@dataclass(frozen=True)
class PartySettings:
    """party: 0 or 1. peer: where party 0 listens for party 1, and party 1 connects. store_bytes: of bundles held ahead."""

    party: int
    models: Path
    listening: Listening
    peer: str
    dealer: str
    policy: PartyPolicy = field(default_factory=PartyPolicy)
    policies: Mapping[str, PartyPolicy] = field(default_factory=dict)
    lanes: int = 4
    store_bytes: int = CAPACITY
    reload: ReloadSettings = field(default_factory=ReloadSettings)


class PartyProcess:
    """`start` listens, `heed_signals` and `wait` serve until SIGTERM or SIGINT, `stop` drains."""

    def __init__(
        self,
        settings: PartySettings,
        gate: Gate | None = None,
        observers: Sequence[Observer] = (),
        books: Books | None = None,
    ) -> None:
        """gate: what every call of a client passes. observers: are told of those calls. books: of the gate; None: no
        administrative calls."""
        identity = settings.listening.identity
        self.settings = settings
        self.models, self._directory = PartyModels.watched(
            settings.models, settings.party, settings.policy, settings.policies, settings.reload
        )
        self.stores = Stores(settings.party, settings.dealer, identity, settings.store_bytes)
        self.lanes, self.party = _ends(settings, self.models, self.stores, identity)
        gate = NotingGate(gate or OpenGate())
        self._gate, self._limit = gate, max(LEAST_MESSAGE, *(model.message_bytes for model in self.models.models()))
        self.models.listen(self._admit)
        limit = self._limit + _SLACK
        self._endpoint = Endpoint(
            settings.listening, SERVICES, threads=THREADS, calls=CALLS, limit=limit, admits=lambda: gate.admits
        )
        watch = Watch(self._endpoint.underway, *observers)
        models_pb2_grpc.add_ModelServiceServicer_to_server(
            PartyModelServicer(self.models, settings.party, gate, watch), self._endpoint.services
        )
        mpc_pb2_grpc.add_PartyServiceServicer_to_server(PartyServicer(self.party, gate, watch), self._endpoint.services)
        if books is not None:
            calls = AdminCalls(books, WatchedModels(self.models, self._directory))
            self._endpoint.services.add_registered_method_handlers(ADMIN, admin_handlers(calls, gate, watch))
        self.heed_signals, self.wait = self._endpoint.heed_signals, self._endpoint.wait
        self.ready, self.certificate = self._endpoint.ready, self._endpoint.certificate

    def start(self) -> tuple[str, str]:
        """Begin; returns where clients come, and where the peer is awaited or found. Raises SettingsError."""
        peer = self.lanes.start() or self.settings.peer
        if self.settings.party == 0:
            self.stores.start()
        address = self._endpoint.start()
        self._directory.start()
        return address, peer

    def _admit(self, models: Sequence[PartyModel]) -> None:
        """Before these versions can be asked for, and after others no longer can. Raises SettingsError."""
        require_messages_fit(models, self._limit)
        self._gate.serve(digests(models))

    def stop(self) -> None:
        """No new calls; those under way have a few seconds, then the lanes and stores end."""
        self._directory.close()
        self._endpoint.stop()
        self.lanes.close()
        self.stores.close()


def _ends(
    settings: PartySettings, models: PartyModels, stores: Stores, identity: Identity | None
) -> tuple[LeaderLanes | FollowerLanes, Party]:
    tls = settings.listening.tls
    if settings.party == 0:
        leading = LeaderLanes(settings.peer, tls, lanes=settings.lanes)
        return leading, Leader(models, stores, leading)
    follower = Follower(models, stores)
    # The dealer has one seat for party 1: a process that party 0 does not take in must not push another from it.
    following = FollowerLanes(settings.peer, tls, follower.serve, lanes=settings.lanes, on_meeting=stores.start)
    return following, follower
