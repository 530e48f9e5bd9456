"""One party: its half of every request, in step with the other's.

Party 0 leads: it takes a bundle of correlations, opens a lane with what its half is bound to, and evaluates. Party 1
follows in the lane's thread: it finds its own half, compares, claims the same bundle, and evaluates. Each answers its own
caller. Neither sees more than its half, uniform words, and openings, which are covered by masks.
"""

from __future__ import annotations

from concurrent.futures import InvalidStateError
from concurrent.futures import TimeoutError as NotInTime
from contextlib import suppress
from time import monotonic

import numpy as np

from secure_infer.errors import InternalFault, PeerFailure, SecureInferError
from secure_infer.mpc import masks
from secure_infer.mpc.program import row_class
from secure_infer.mpc.ring import Words
from secure_infer_server.mpc.halves import Costs, Half, Halves, Start
from secure_infer_server.mpc.lane import Lane
from secure_infer_server.mpc.leader import LeaderLanes
from secure_infer_server.mpc.models import PartyModel, PartyModels
from secure_infer_server.mpc.stores import Drawn, Stores

HALF_SECONDS = 2.0
"""How long the party that follows waits for its half, once the other has begun."""

CLAIM_SECONDS = 1.0
"""And for a bundle that the other has already."""

AHEAD = {1: 64, 2: 8, 4: 4, 8: 4, 16: 4}
"""Bundles kept prepared by rows, from the start; those of other sizes are made when they are first asked for."""


class Party:
    """What both parties have. models, stores: this party's."""

    def __init__(self, models: PartyModels, stores: Stores) -> None:
        self.models, self.stores = models, stores
        self.halves = Halves()
        for name in models.names():
            program = models.get(name).program
            for rows, ahead in AHEAD.items():
                recipe = program.recipe(rows)
                if recipe is not None:
                    stores.register(recipe, ahead, model=name, keep=True)

    def answer(self, half: Half) -> tuple[Words, Costs]:
        """This party's share of the answers to a half that was admitted; raises what the catalogue names."""
        raise NotImplementedError


class Leader(Party):
    """Party 0."""

    def __init__(self, models: PartyModels, stores: Stores, lanes: LeaderLanes) -> None:
        super().__init__(models, stores)
        self._lanes = lanes
        self._opened: dict[str, bytes] = {}  # by model, the epoch whose masks both parties have opened its weights against

    def answer(self, half: Half) -> tuple[Words, Costs]:
        started = monotonic()
        model = self.models.get(half.model)
        recipe = model.program.recipe(len(half.share))
        drawn = None if recipe is None else self.stores.take(recipe, half.deadline)
        if half.answer.done():  # abandoned: nobody else need wait for a lane because of it
            return half.answer.result()
        opens = drawn is not None and bool(model.evaluator.mask_shapes) and self._opened.get(half.model) != drawn.epoch
        start = Start(half.binding, b"" if drawn is None else drawn.correlations.id, opens)
        try:
            with self._lanes.lead(start.pack(), half.deadline) as lane:
                waited = monotonic() - started
                share = evaluate(model, half.share, drawn, lane, opens=opens)
                if not lane.rounds:
                    lane.agree()
                    waited += lane.waited
                costs = _costs(lane, waited, drawn)
        except BaseException:
            self._opened.pop(half.model, None)  # whether the other party has opened them, too, is not known
            raise
        if opens and drawn is not None:
            self._opened[half.model] = drawn.epoch  # its messages after the opening have come
        return share, costs


class Follower(Party):
    """Party 1; `serve` is what its lanes call."""

    def answer(self, half: Half) -> tuple[Words, Costs]:
        recipe = self.models.get(half.model).program.recipe(len(half.share))
        if recipe is not None:
            self.stores.register(recipe, model=half.model)  # dealt once both parties ask for it
        self.halves.offer(half)
        try:
            return half.answer.result(timeout=max(0.0, half.deadline - monotonic()))
        except NotInTime:
            raise PeerFailure("request: the other party did not begin it in time, or not finish it") from None

    def serve(self, start: bytes, lane: Lane) -> None:
        """Evaluate the request that the leader opens; errors go to this party's caller, and to the leader as they are."""
        opening = Start.unpack(start)
        began = monotonic()
        half = self.halves.claim(opening.request_id, HALF_SECONDS)
        try:
            opening.require(half)
            lane.deadline = half.deadline
            model = self.models.get(half.model)
            recipe = model.program.recipe(len(half.share))
            drawn = None if recipe is None else self.stores.claim(recipe, opening.bundle, monotonic() + CLAIM_SECONDS)
            waited = monotonic() - began
            share = evaluate(model, half.share, drawn, lane, opens=opening.opens)
            if not lane.rounds:
                lane.agree()
            with suppress(InvalidStateError):  # abandoned meanwhile
                half.answer.set_result((share, _costs(lane, waited, drawn)))
        except BaseException as error:
            known = error if isinstance(error, SecureInferError) else InternalFault("the party failed; see its log")
            with suppress(InvalidStateError):
                half.answer.set_exception(known)
            raise


def evaluate(model: PartyModel, share: Words, drawn: Drawn | None, lane: Lane, *, opens: bool) -> Words:
    """This party's share (rows, outputs) of the answers; opens: open the weights against this epoch's masks first."""
    evaluator = model.evaluator
    rows = len(share)
    if drawn is None:
        return evaluator.run(share, lane, None, lane.zero)
    if opens and drawn.mask_seed is not None:
        evaluator.open_masks(lane, drawn.epoch, masks.expand(drawn.mask_seed, evaluator.mask_shapes))
    padded = np.zeros((row_class(rows), share.shape[1]), dtype=np.uint64)
    padded[:rows] = share
    return evaluator.run(padded, lane, drawn.correlations, lane.zero, drawn.epoch)[:rows]


def _costs(lane: Lane, waited: float, drawn: Drawn | None) -> Costs:
    return Costs(waited, lane.waited, max(1, lane.rounds), lane.sent, 0 if drawn is None else drawn.bytes)
