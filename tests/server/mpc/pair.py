"""Both parties in this process, on real lanes, with bundles dealt in memory: for what has to go wrong at one exact place."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mpc.two_parties import in_step
from secure_infer.heads import Head
from secure_infer.mpc import masks, sharefile
from secure_infer.mpc.correlations import Correlations, Recipe, deal
from secure_infer.mpc.evaluate import Evaluator
from secure_infer.mpc.ring import Matrix, decode, encode
from secure_infer.mpc.sharing import split
from secure_infer.mpc.streams import fresh_key
from secure_infer_server.mpc.follower import FollowerLanes
from secure_infer_server.mpc.halves import Half
from secure_infer_server.mpc.lane import Patience
from secure_infer_server.mpc.leader import LeaderLanes
from secure_infer_server.mpc.models import PartyModel, PartyModels
from secure_infer_server.mpc.party import Follower, Leader
from secure_infer_server.mpc.stores import Drawn


class Dealt:
    """One party's stand-in for its stores; both share `bundles`, and one epoch's seeds."""

    def __init__(self, party: int, epochs: Epochs) -> None:
        self.party, self.epochs = party, epochs

    def register(self, recipe: Recipe, *_: object, **__: object) -> None:
        """Nothing is kept ahead."""

    def take(self, recipe: Recipe, deadline: float) -> Drawn:
        first, second = deal(recipe, self.epochs.fixed(recipe))
        self.epochs.bundles[second.id] = second
        return self._drawn(Correlations(first, recipe, 0))

    def claim(self, recipe: Recipe, identity: bytes, deadline: float) -> Drawn:
        return self._drawn(Correlations(self.epochs.bundles.pop(identity), recipe, 1))

    def _drawn(self, correlations: Correlations) -> Drawn:
        return Drawn(correlations, self.epochs.id, self.epochs.seeds[self.party], 0)


class Epochs:
    """The dealer's part."""

    def __init__(self) -> None:
        self.bundles: dict[bytes, Any] = {}
        self.begin()

    def begin(self) -> None:
        self.id, self.seeds = secrets.token_bytes(16), (fresh_key(), fresh_key())

    def fixed(self, recipe: Recipe) -> dict[int, Matrix]:
        first, second = (masks.expand(seed, recipe.tensors()) for seed in self.seeds)
        return {tensor: Matrix(first[tensor] + second[tensor]) for tensor in first}


class Pair:
    """A head with shared weights at two parties; `evaluate`s rows, raising the leader's error, or the follower's."""

    def __init__(self, head: Head, directory: Path) -> None:
        self.epochs = Epochs()
        folders = [directory / str(party) for party in (0, 1)]
        for folder in folders:
            folder.mkdir()
        self.program, paths = sharefile.share_model(head, folders, "m")
        self.evaluators, models = [], []
        for party, path in enumerate(paths):
            half = sharefile.load(path)
            self.evaluators.append(Evaluator(half.program, half.tensors, party))
            models.append(PartyModels({"m": PartyModel(half.spec, half.program, self.evaluators[-1])}, {}))
        stores: list[Any] = [Dealt(party, self.epochs) for party in (0, 1)]
        patience = Patience(2.0, 5.0, (0.01, 0.1))
        self.leading = LeaderLanes("127.0.0.1:0", None, lanes=2, patience=patience)
        self.leader = Leader(models[0], stores[0], self.leading)
        self.follower = Follower(models[1], stores[1])
        self.leading.start()
        self.following = FollowerLanes(self.leading.address, None, self.follower.serve, lanes=2, patience=patience)
        self.following.start()
        assert self.leading.wait_up(30)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        request_id, halves = secrets.token_bytes(16), split(encode(x, self.program.fraction))

        def work(party: int) -> Any:
            end = (self.leader, self.follower)[party]
            digest = end.models.get("m").digest
            half = Half(request_id, "c", "m", digest, b"", halves[party], time.monotonic() + 20)
            with end.halves.admitted(request_id):
                return end.answer(half)[0]

        first, second = in_step(work)
        return decode(first + second, self.program.answer_fraction)

    def close(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda end: end.close(), (self.leading, self.following)))
