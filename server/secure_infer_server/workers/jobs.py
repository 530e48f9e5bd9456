"""What is asked of a worker, in frames, and what it answers.

    do       header fields                        parts                            answered
    offer    model, plan                          the plan's recipe, pickled       no
    keys     plan, key                            key material                     no
    forget   plan, key                                                             no
    withdraw model, plan                                                           no; an offer that is no more
    check    model, plan, key, digest             key material                     yes; it is held from then on
    infer    model, plan, key, queries, blinds    ciphertexts, then blinds         yes
    batch    model, plan, key, seconds                                             with events, then yes
    features                                      ciphertexts                      no
    end                                                                            no; ends features
    cancel                                                                         no; ends what is under way

Only the server pickles, and only what it made of its own models: what a worker says is lengths, numbers and bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.reduction import ForkingPickler
from typing import Any

from secure_infer.errors import CATALOGUE, InternalFault, SecureInferError
from secure_infer_server.dataplane import Times
from secure_infer_server.models.served import Offered, OfferedBatch
from secure_infer_server.workers.frames import Header

Recipe = Callable[[], bytes]


@dataclass(frozen=True)
class OfferName:
    """A plan of one version of a model; digests in hex."""

    model: str
    plan: str


@dataclass(frozen=True)
class Held:
    """A client's key material for a plan. plan: its digest in hex. key: what tells it from those of other clients, whose bytes
    may be equal (`KeyName.id`), 64 digits of hex. data: as it was uploaded and checked."""

    plan: str
    key: str
    data: bytes = field(repr=False)

    @property
    def name(self) -> tuple[str, str]:
        return self.plan, self.key


@dataclass(frozen=True)
class Job:
    """One thing to do. seconds: estimated. make: the frame, made when a worker takes it. deadline: of the loop's clock.

    recipe: of the offer, for a worker that does not hold it yet.
    """

    offer: OfferName
    recipe: Recipe
    keys: Held | None
    seconds: float
    make: Callable[[], tuple[Header, list[bytes]]]
    deadline: float | None = None
    holds: Held | None = None
    """Keys that the worker holds once it has answered."""
    caller: str = ""


def recipe_of(offered: Offered | OfferedBatch) -> bytes:
    """What a worker compiles a plan from."""
    if isinstance(offered, OfferedBatch):
        return bytes(ForkingPickler.dumps(offered.program))
    return bytes(ForkingPickler.dumps((offered.plan, offered._compile)))


def error_header(error: SecureInferError) -> Header:
    return {"error": error.reason, "message": error.message, "details": error.details}


def raise_error(header: Header) -> None:
    """Raise what a worker's answer says went wrong, if anything did."""
    if "error" in header:
        kind = CATALOGUE.get(header["error"], InternalFault)
        raise kind(str(header["message"]), **header["details"])


def group(sizes: Sequence[int], parts: Sequence[bytes]) -> list[list[bytes]]:
    """Parts in groups of those sizes."""
    rest = iter(parts)
    return [list(islice(rest, size)) for size in sizes]


def times_of(header: Mapping[str, Any], total: float) -> Times:
    """A worker's times; the total is the server's."""
    found = Times(**header["times"])
    return Times(found.load, found.evaluate, found.blind, total, found.blinds_ready, found.blinds_inline)
