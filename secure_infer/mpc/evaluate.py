"""One party's half of an evaluation: its share of the inputs to its share of the answers, over a link.

Both parties run the same steps in the same order; see `secure_infer.mpc.program` for what they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secure_infer.errors import CorrelationMisuse
from secure_infer.mpc import comparison
from secure_infer.mpc.correlations import MOD, Correlations, Product, Square, WeightProduct, uniform_mod
from secure_infer.mpc.crypten import available
from secure_infer.mpc.link import Link, opened
from secure_infer.mpc.program import Affine, Comparisons, Largest, Positive, Powers, Program, Rectify, Weights
from secure_infer.mpc.ring import Matrix, Words, truncate
from secure_infer.mpc.streams import KeyedStream, uniform_words


@dataclass(frozen=True)
class Tensor:
    """An affine step's weight (inputs, outputs) and bias (outputs,): in the clear, or one party's shares."""

    weight: Words
    bias: Words


class _Opened:
    """A shared weight whose difference from its fixed mask is public: x W = a b + a (W - b) + (x - a) W."""

    def __init__(self, difference: Words, mask: Words, party: int) -> None:
        self.difference = Matrix(difference)
        self.right = Matrix(mask + difference if party == 0 else mask)


class Evaluator:
    """One party, one program, one model. `run` may be called by several threads at once."""

    def __init__(self, program: Program, tensors: Sequence[Tensor], party: int) -> None:
        self.program, self.party = program, party
        self._compare = _comparing(program.comparisons)
        self._tensors = tuple(tensors)
        self._clear = [Matrix(t.weight) for t in tensors] if program.weights is Weights.REPLICATED else []
        self._opened: dict[bytes, tuple[_Opened, ...]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Evaluator, (self.program, self._tensors, self.party)  # what was opened is this process's own

    @property
    def mask_shapes(self) -> dict[int, tuple[int, int]]:
        """Shapes (inputs, outputs) of the fixed masks that shared weights take."""
        if self._clear:
            return {}
        return {i: (t.weight.shape[0], t.weight.shape[1]) for i, t in enumerate(self._tensors)}

    def needs_masks(self, epoch: bytes) -> bool:
        """Whether the weights are still to be opened against that epoch's masks."""
        return bool(self.mask_shapes) and epoch not in self._opened

    def open_masks(self, link: Link, epoch: bytes, masks: Mapping[int, Words]) -> None:
        """Open every weight less its mask, once an epoch, in one round; masks: this party's shares by tensor.

        Weights and masks do not change within an epoch, so that opening twice says nothing new.
        """
        differences = opened(link, *(t.weight - masks[i] for i, t in enumerate(self._tensors)))
        found = tuple(_Opened(d, masks[i], self.party) for i, d in enumerate(differences))
        # One request may still run on the epoch before.
        self._opened = {**dict(list(self._opened.items())[-1:]), epoch: found}

    def run(
        self, x: Words, link: Link, correlations: Correlations | None, zero: KeyedStream, epoch: bytes = b""
    ) -> Words:
        """This party's share (B, outputs) of the answers, for its share x (B, features) of the inputs.

        correlations: of the program's recipe for B rows. zero: a stream that both parties draw alike and the client does
        not know; it re-randomises the answer, whose plain share would be a function of the client's share and the weights,
        and local products before they are truncated: whether that fails would depend on shares that the client chose.
        epoch: of the masks that shared weights were opened against.
        Raises PeerFailure or CorrelationMisuse.
        """
        rows = len(x)
        for step in self.program.steps:
            match step:
                case Affine():
                    product = self._affine(step, x, link, correlations, epoch)
                    if self._clear and step.truncate:
                        product = self._fresh(product, zero)
                    x = truncate(product, step.truncate, self.party)
                case Powers():
                    x = self._powers(step, x, link, correlations)
                case Rectify():
                    x = self._compare.relu(x, link, _required(correlations), self.party)
                case Largest():
                    x = self._compare.argmax(x, link, _required(correlations), self.party)
                case Positive():
                    x = self._compare.positive(x, link, _required(correlations), self.party)
        if correlations is not None:
            correlations.done()
        return self._rerandomised(x, zero.words(rows * self.program.outputs).reshape(x.shape))

    def _affine(self, step: Affine, x: Words, link: Link, correlations: Correlations | None, epoch: bytes) -> Words:
        bias = self._tensors[step.tensor].bias
        if self._clear:
            product = self._clear[step.tensor].apply(x)
            return product + bias if self.party == 0 else product
        opened_weights = self._opened.get(epoch)
        if opened_weights is None:
            raise CorrelationMisuse("shared weights: their masks were not opened in this epoch")
        shares = _required(correlations).take(WeightProduct(step.tensor, len(x), step.inputs, step.width))
        weight = opened_weights[step.tensor]
        (public,) = opened(link, x - shares["a"])
        return shares["ab"] + weight.difference.apply(shares["a"]) + weight.right.apply(public) + bias

    def _powers(self, step: Powers, t: Words, link: Link, correlations: Correlations | None) -> Words:
        found = {1: t}
        if max(step.exponents) > 1:
            shares = _required(correlations).take(Square(t.size))
            a, aa = (shares[name].reshape(t.shape) for name in ("a", "aa"))
            (public,) = opened(link, t - a)
            square = np.uint64(2) * public * a + aa
            found[2] = truncate(square + public * public if self.party == 0 else square, step.truncate, self.party)
        higher = [exponent for exponent in step.exponents if exponent > 2]
        if higher:
            # t³ = t t², t⁴ = t² t², all in one round.
            left = np.stack([found[exponent - 2] for exponent in higher])
            right = np.stack([found[2]] * len(higher))
            for exponent, product in zip(higher, self._product(left, right, link, correlations), strict=True):
                found[exponent] = truncate(product, step.truncate, self.party)
        return np.concatenate([found[exponent] for exponent in step.exponents], axis=1)

    def _product(self, x: Words, y: Words, link: Link, correlations: Correlations | None) -> Words:
        shares = _required(correlations).take(Product(x.size))
        a, b, ab = (shares[name].reshape(x.shape) for name in ("a", "b", "ab"))
        d, e = opened(link, x - a, y - b)
        product = d * b + e * a + ab
        return np.asarray(product + d * e if self.party == 0 else product)

    def _fresh(self, share: Words, zero: KeyedStream) -> Words:
        """Another share of the same, uniform to everybody but the parties."""
        words = zero.words(share.size).reshape(share.shape)
        return share + words if self.party == 0 else share - words

    def _rerandomised(self, share: Words, words: Words) -> Words:
        last = self.program.steps[-1]
        if isinstance(last, Largest) and self.program.comparisons is Comparisons.TABLES:
            zero = uniform_mod(words)
            return MOD.join(share, zero) if self.party == 0 else MOD.part(share, zero)
        if isinstance(last, Positive):
            return np.asarray((share ^ words) & np.uint64(1))
        flooded = share + self._noise(share.size).reshape(share.shape)
        return flooded + words if self.party == 0 else flooded - words

    def _noise(self, count: int) -> Words:
        """This party's half of the flood, known to it alone: uniform within half of `Program.flood` either way.

        Answers behind hidden layers are sums of last weights times units that truncation rounded at random: without noise
        repeats of one query differ by multiples of single weights.
        """
        reach = int(self.program.flood / 2 * 2.0**self.program.answer_fraction)
        if not reach:
            return np.zeros(count, dtype=np.uint64)
        return np.asarray(uniform_words(count) % np.uint64(2 * reach + 1) - np.uint64(reach))


def _comparing(how: Comparisons) -> Any:
    """The module with relu, positive and argmax; raises MissingExtra when CrypTen is asked for and not installed."""
    if how is Comparisons.TABLES:
        return comparison
    available()
    # Here, since it takes torch.
    from secure_infer.mpc.crypten import protocols

    return protocols


def _required(correlations: Correlations | None) -> Correlations:
    if correlations is None:
        raise CorrelationMisuse("this program takes correlations, and none were given")
    return correlations
