"""ReLU, argmax and signs by CrypTen's protocols: shares in, shares out, as numpy words.

The counterparts of `secure_infer.mpc.comparison`. CrypTen compares all 64 bits; where a sign is all that is asked, numbers
are moved up by 32 bits first, so that the low 32 decide, in which errors of truncation vanish. ReLU cannot do so: a
truncation that failed before it may turn a positive number into zero, unseen.

Take correlations by `needs`. Several threads may call at once, one link each. Errors: PeerFailure, CorrelationMisuse; none
of ours is a RuntimeError, which CrypTen would swallow.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from secure_infer.mpc.correlations import Correlations
from secure_infer.mpc.crypten import seams
from secure_infer.mpc.crypten.imports import load
from secure_infer.mpc.crypten.session import session
from secure_infer.mpc.crypten.tensors import from_words, to_words
from secure_infer.mpc.link import Link
from secure_infer.mpc.ring import Words

_UP = np.uint64(32)


def relu(x: Words, link: Link, correlations: Correlations, party: int) -> Words:
    """Shares of max(x, 0), for shares of x of any shape with |x| < 2^63; by `relu_needs(x.size)`."""
    with _shared(x.reshape(-1), link, correlations, party) as tensor:
        return to_words(tensor.relu().share).reshape(x.shape)


def positive(x: Words, link: Link, correlations: Correlations, party: int) -> Words:
    """XOR shares of one bit: whether x > 0, for |x| < 2^31; by `positive_needs(x.size)`.

    Shares of 0 or 1 mod 2^64 have XOR shares of the same in their lowest bits.
    """
    with _shared(x.reshape(-1) << _UP, link, correlations, party) as tensor:
        return to_words(tensor.gt(0).share).reshape(x.shape) & np.uint64(1)


def argmax(y: Words, link: Link, correlations: Correlations, party: int) -> Words:
    """Shares (rows, classes) of 1 at the largest y of each row and 0 elsewhere; by `labels_needs(rows, classes)`.

    Differences stay below 2^31; two classes or more. Among equal numbers one is chosen at random, which neither party
    learns. The number of the class is the sum of shares times 0, 1, 2, ..., locally.
    """
    with _shared(y << _UP, link, correlations, party) as tensor:
        return to_words(tensor.argmax(dim=1, one_hot=True).share)


@contextmanager
def _shared(share: Words, link: Link, correlations: Correlations, party: int) -> Iterator[Any]:
    """This party's share as CrypTen's tensor of integers, within a session."""
    seams.bind()
    with session(party, link, correlations):
        yield load().mpc.MPCTensor.from_shares(from_words(share), precision=0)
