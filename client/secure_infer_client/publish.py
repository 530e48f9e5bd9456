"""Results that leave the key holder's hands: noise drawn by the client, then rounding.

A decrypted logit is the head's logit plus an error that depends on the secret key and on the ciphertext. Whoever saw the
ciphertext, the server above all, learns from enough exact results about the key (IND-CPA-D: Li and Micciancio, "On the
Security of Homomorphic Encryption on Approximate Numbers", Eurocrypt 2021). The remedy is a Gaussian, wide against the
largest error, added after decryption (Li, Micciancio, Schultz, Sorrell, "Securing Approximate Homomorphic Encryption
Using Differential Privacy", CRYPTO 2022).

The rule here: noise of standard deviation sigma = 2^t * error_bound on every logit, then rounding to a grid no finer than
sigma, which leaves no digits of noise and no low bits of a float to read. With error_bound = 1e-3 and t = 7,
sigma = 0.128 and the grid is 0.2:   logit 3.14159 -> 3.14159 + 0.09 -> 3.2

What that gives. Let q rows of K logits be published under one key, by a server that evaluated honestly. Two normal
distributions of equal sigma whose means differ by at most error_bound are 1/(2 * 4^t) nats apart (Kullback-Leibler), q K of them
q K times that, chosen one after another or not. By Pinsker's inequality the statistical distance from the same noise on the
head's exact logits, which know nothing of key or ciphertext, is then at most

    sqrt(q K)/2 * 2^-t + q K * 2e-9

the last term for errors beyond the bound, which holds six sigma of a plan's noise. Rounding, labels and probabilities
made of the result add nothing. For t = 7, K = 21 that is 1.8% for one row: enough to share results with others, far from
a cryptographic 2^-40, which costs noise of 2^40 errors. What of the key q rows can tell is at most q K/(2 * 4^t) nats,
0.6 for a thousand such rows.

Not defended: results of a server that evaluates something else than it says, whose errors nothing bounds; the same result
published several times, since noise averages out (publish once and keep it); the input, of which a logit tells by design;
the model, which answers give away. The server's own flood counts for nothing here: the server knows it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.blinding import system_normal
from secure_infer.ckks.plan import SIGMAS
from secure_infer.errors import InvalidInput
from secure_infer.heads import ModelSpec
from secure_infer_client.prediction import Prediction

NOISE_BITS = 7
"""t: noise is 2^t times the error bound."""

PROBABILITY_DECIMALS = 2


@dataclass(frozen=True)
class Published:
    """Logits to be shared, float64 (B, K), multiples of `step`.

    noise: the standard deviation that was added. distance: the bound on the statistical distance for these rows alone; for
    all that was published under one key, see `distance`.
    """

    logits: NDArray[np.float64]
    noise: float
    step: float
    distance: float


@dataclass(frozen=True)
class PublishedPrediction:
    """A label and its probability, made of published logits.

    probability: rounded; NaN for regression. certain: the published margin is so large that neither noise, rounding nor
    encryption changed the label; where it is False, the label may be another than that of `Prediction`.
    """

    label: str
    probability: float
    certain: bool


def publish(
    logits: NDArray[np.float64], error_bound: float, *, noise: float | None = None, step: float | None = None
) -> Published:
    """Logits (B, K) of `client.predict`, with noise and rounded.

    error_bound: on each logit, from `client.last_call.stats.error_bound`. noise: standard deviation in logits;
    2^NOISE_BITS times the bound by default. step: the grid, at least the noise; by default the next of 1, 2, 5 times a
    power of ten. Raises InvalidInput for a noise below the error bound, a step below the noise, or logits that are no
    finite (B, K).
    """
    rows = np.asarray(logits, np.float64)
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise InvalidInput(f"publish: expected finite logits, shape (B, K), got shape {rows.shape}")
    if not 0 < error_bound < math.inf:
        raise InvalidInput(f"error_bound: expected that of the call, above 0, got {error_bound:g}")
    deviation = 2.0**NOISE_BITS * error_bound if noise is None else noise
    if not error_bound <= deviation < math.inf:
        raise InvalidInput(
            f"noise: {deviation:g} hides nothing of errors up to {error_bound:g}; expected at least that, "
            f"better {2**NOISE_BITS} times as much"
        )
    grid = _grid(deviation) if step is None else step
    if not deviation <= grid < math.inf:
        raise InvalidInput(f"step: {grid:g} would show digits of noise; expected at least the noise, {deviation:g}")
    noisy = rows + deviation * system_normal(rows.size).reshape(rows.shape)
    return Published(np.rint(noisy / grid) * grid, deviation, grid, distance(rows.size, error_bound, deviation))


def distance(logits: int, error_bound: float, noise: float) -> float:
    """The bound on the statistical distance, at most 1, when so many logits (q K) are published under one key.

    A new client has a new key.
    """
    return min(1.0, math.sqrt(logits) / 2 * error_bound / noise + logits * math.erfc(SIGMAS / math.sqrt(2)))


def publish_predictions(
    spec: ModelSpec,
    predictions: Sequence[Prediction],
    *,
    noise: float | None = None,
    decimals: int = PROBABILITY_DECIMALS,
) -> list[PublishedPrediction]:
    """Labels and probabilities to be shared, of what `client.classify` returned: all of it is made of noisy logits.

    spec: `client.spec`. decimals: of the probability. noise: see `publish`. Every window of a text scored window by
    window counts as a row; the published one that is surest decides.
    """
    if not predictions:
        return []
    windows = [one.parts or (one,) for one in predictions]
    bound = max(one.error_bound for one in predictions)
    shared = publish(np.stack([part.logits for parts in windows for part in parts]), bound, noise=noise)
    probabilities = spec.probabilities(shared.logits).max(axis=1).round(decimals)
    reach = SIGMAS * shared.noise + shared.step / 2 + bound
    certain = spec.margins(shared.logits) > 2 * reach
    found = (
        PublishedPrediction(label, float(probability), bool(sure))
        for label, probability, sure in zip(spec.decide(shared.logits), probabilities, certain, strict=True)
    )
    return [max(islice(found, len(parts)), key=lambda one: one.probability) for parts in windows]


def _grid(least: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is at least `least`."""
    power = math.floor(math.log10(least))
    return next(grid for factor in (1, 2, 5, 10) if (grid := float(f"{factor}e{power}")) >= least)
