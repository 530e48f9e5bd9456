"""One party: its half of every request, in step with the other's.

Party 0 leads: it takes a bundle of correlations, opens a lane with what its half is bound to, and evaluates. Party 1
follows in the lane's thread: it finds its own half, compares, claims the same bundle, and evaluates. Each answers its own
caller. Neither sees more than its half, uniform words, and openings, which are covered by masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import InvalidStateError
from concurrent.futures import TimeoutError as NotInTime
from contextlib import suppress
from time import monotonic, sleep

import numpy as np

from secure_infer.errors import CorrelationMisuse, InternalFault, PeerFailure, SecureInferError
from secure_infer.mpc import masks
from secure_infer.mpc.correlations import Recipe
from secure_infer.mpc.program import row_class
from secure_infer.mpc.ring import Words
from secure_infer_server.mpc.halves import Costs, Half, Halves, Start, Whereabouts, ask, asked
from secure_infer_server.mpc.lane import Lane
from secure_infer_server.mpc.leader import LeaderLanes
from secure_infer_server.mpc.models import PartyModel, PartyModels
from secure_infer_server.mpc.stores import Drawn, Stores

HALF_SECONDS = 2.0
"""How long a request waits for its other half, once one party has begun."""

LANE_SECONDS = 0.1
"""How much of it on a lane. Then the lane is free for others, and the leader asks now and again."""

ASK_SECONDS = (0.02, 0.25)
"""Between questions, at first and at most."""

CLAIM_SECONDS = 1.0
"""And for a bundle that the other has already."""

AHEAD = {1: 64, 2: 8, 4: 4, 8: 4, 16: 4}
"""Bundles kept prepared by rows, from the start; those of other sizes are made when they are first asked for."""


class Party:
    """What both parties have. models, stores: this party's."""

    def __init__(self, models: PartyModels, stores: Stores) -> None:
        self.models, self.stores = models, stores
        self.halves = Halves()
        self._ahead: dict[bytes, Recipe] = {}
        models.listen(self._know)

    def _know(self, models: Sequence[PartyModel]) -> None:
        """Keep bundles ahead for these; raises ResourceExhausted. Those of models that came later make room for others."""
        first, gone = not self._ahead, dict(self._ahead)
        for model in models:
            for rows, ahead in AHEAD.items():
                recipe = model.recipe(rows)
                if recipe is None or gone.pop(recipe.digest, None) is not None:
                    continue
                if recipe.digest not in self._ahead:
                    self.stores.register(recipe, ahead, model=model.name, keep=first)
                    self._ahead[recipe.digest] = recipe
        for digest, recipe in gone.items():
            self.stores.release(recipe)
            del self._ahead[digest]

    def answer(self, half: Half) -> tuple[Words, Costs]:
        """This party's share of the answers to a half that was admitted; raises what the catalogue names."""
        raise NotImplementedError


class Leader(Party):
    """Party 0."""

    def __init__(self, models: PartyModels, stores: Stores, lanes: LeaderLanes) -> None:
        super().__init__(models, stores)
        self._lanes = lanes
        self._opened: dict[
            bytes, bytes
        ] = {}  # by model's digest, the epoch in which both parties have opened its weights

    def answer(self, half: Half) -> tuple[Words, Costs]:
        # The other party waits a little longer, and the caller hears first what went wrong here.
        half.deadline -= max(0.0, half.deadline - monotonic()) / 20
        until = min(half.deadline, monotonic() + HALF_SECONDS)
        try:
            return self._led(half)
        except PeerFailure:
            if not self._comes(half, until):
                raise
        return self._led(half)  # on correlations of its own: those of before have masked a message already

    def _comes(self, half: Half, until: float) -> bool:
        """Whether the other party has its half by then, and has not begun with it."""
        pause, longest = ASK_SECONDS
        while monotonic() + pause < until and not half.answer.done():
            sleep(pause)
            pause = min(longest, 2 * pause)
            with self._lanes.lead(ask(half.request_id), until, half.answer) as lane:
                found = lane.exchange(bytes(1))[0]
            if found != Whereabouts.UNKNOWN:
                return found == Whereabouts.HERE
        return False

    def _led(self, half: Half) -> tuple[Words, Costs]:
        started = monotonic()
        model = self.models.version(half.model, half.model_digest)
        recipe = model.recipe(len(half.share))
        drawn = None if recipe is None else self.stores.take(recipe, half.deadline)
        opens = (
            drawn is not None and bool(model.evaluator.mask_shapes) and self._opened.get(model.digest) != drawn.epoch
        )
        start = Start(half.binding, b"" if drawn is None else drawn.correlations.id, opens)
        try:
            with self._lanes.lead(start.pack(), half.deadline, half.answer) as lane:
                waited = monotonic() - started
                share = evaluate(model, half.share, drawn, lane, opens=opens)
                if not lane.rounds:
                    lane.agree()
                    waited += lane.waited
                costs = _costs(lane, waited, drawn)
        except BaseException:
            self._opened.pop(model.digest, None)  # whether the other party has opened them, too, is not known
            raise
        if opens and drawn is not None:
            self._opened[model.digest] = drawn.epoch  # its messages after the opening have come
        return share, costs


class Follower(Party):
    """Party 1; `serve` is what its lanes call."""

    def answer(self, half: Half) -> tuple[Words, Costs]:
        recipe = self.models.version(half.model, half.model_digest).recipe(len(half.share))
        if recipe is not None:
            self.stores.register(recipe, model=half.model)  # dealt once both parties ask for it
        self.halves.offer(half)
        try:
            return half.answer.result(timeout=max(0.0, half.deadline - monotonic()))
        except NotInTime:
            raise PeerFailure("request: the other party did not begin it in time, or not finish it") from None

    def _claimed(self, recipe: Recipe, bundle: bytes) -> Drawn:
        try:
            return self.stores.claim(recipe, bundle, monotonic() + CLAIM_SECONDS)
        except CorrelationMisuse as error:  # as it happens when a party or the dealer was started anew
            raise PeerFailure(f"peer: it holds other correlations than this party; {error.message}") from error

    def serve(self, start: bytes, lane: Lane) -> None:
        """Evaluate the request that the leader opens; errors go to this party's caller, and to the leader as they are."""
        request_id = asked(start)
        if request_id is not None:
            lane.exchange(bytes([self.halves.whereabouts(request_id)]))
            return
        opening = Start.unpack(start)
        began = monotonic()
        half = self.halves.claim(opening.request_id, LANE_SECONDS)
        try:
            opening.require(half)
            lane.deadline = half.deadline
            model = self.models.version(half.model, half.model_digest)
            recipe = model.recipe(len(half.share))
            drawn = None if recipe is None else self._claimed(recipe, opening.bundle)
            waited = monotonic() - began
            if drawn is None:
                lane.agree()  # no round will say so, and the leader need not wait for the evaluation
            share = evaluate(model, half.share, drawn, lane, opens=opening.opens)
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
    link = lane.waited if lane.rounds else 0.0  # without a round, that was the wait for agreement
    return Costs(waited, link, max(1, lane.rounds), lane.sent, 0 if drawn is None else drawn.bytes)
