"""Models that change at two parties: nothing is evaluated by halves of different versions."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest

from secure_infer.errors import HalvesDiffer, ModelChanged
from secure_infer.heads import Head, ReLU
from secure_infer.v1 import models_pb2, models_pb2_grpc
from secure_infer_client import Client
from server.mpc.processes import FEATURES, Deployment
from shared import hidden_head, unit_rows, until

OLD, NEW, NEWEST = (hidden_head((FEATURES, 6, 3), ReLU(), seed=seed) for seed in (0, 1, 2))
X = unit_rows(2, FEATURES)


def ready(address: str) -> models_pb2.ModelReadyResponse:
    with grpc.insecure_channel(address) as channel:
        request = models_pb2.ModelReadyRequest(model="m")
        return models_pb2_grpc.ModelServiceStub(channel).ModelReady(request, timeout=10)


def test_a_version_is_evaluated_once_both_parties_have_it(tmp_path: Path) -> None:
    options = ("--reload", "0.1", "--model-versions", "1")
    deployment = Deployment(tmp_path, {"m": OLD}, options=(options, options), insecure=True)
    try:
        first, second = addresses = [party.address for party in deployment.parties]

        def client(accept: bool = False) -> Client:
            return Client(tuple(addresses), model="m", scheme="mpc", accept_model=(lambda _: True) if accept else None)

        def right(asked: Client, head: Head) -> bool:
            return bool(np.abs(asked.predict(X) - head.evaluate(X)).max() < 1e-2)

        with client() as pinned, client(accept=True) as open_minded:
            assert right(pinned, OLD)
            assert right(open_minded, OLD)
            NEW.save(deployment.folders[0] / "m.head")
            until(lambda: ready(first).digest.hex() == NEW.digest)
            assert ready(second).digest.hex() == OLD.digest
            assert right(pinned, OLD)
            with client() as fresh, pytest.raises(HalvesDiffer):
                fresh.predict(X)
            (deployment.folders[1] / "m.head").write_bytes(b"torn")
            until(lambda: bool(ready(second).held_back))
            assert right(pinned, OLD)
            NEW.save(deployment.folders[1] / "m.head")
            until(lambda: ready(second).digest.hex() == NEW.digest)
            with client() as fresh:
                assert right(fresh, NEW)  # on correlations that were dealt for it since
            assert right(pinned, OLD)
            for folder, address in zip(deployment.folders, addresses, strict=True):
                NEWEST.save(folder / "m.head")
                until(lambda address=address: ready(address).digest.hex() == NEWEST.digest)
            with pytest.raises(ModelChanged):
                pinned.predict(X)  # one earlier version is kept, and that is another
            assert right(open_minded, NEWEST)
    finally:
        deployment.end()
