"""Training fc 784-128-64-10 for encryption: squares between the layers, and a price on what the logits could reach.

A plan leaves room for the largest logit on any input of norm one, R, not for those that digits reach. R is at most

    R_k = sum_j |V_kj| (Z_j² + 2 |b_j| Z_j),   Z_j = max|eig(W1' diag(w_j) W1)| + |2 W1' (w_j b1)|

with w_j the weights of unit j of the second layer, b_j what it is when the image is zero, and V the last layer. The loss is
the cross-entropy plus `price` times the mean of R_k; the eigenvalues come by power iteration, a step a batch.

Ranges are published as powers of two, so logits are scaled at last until R is just below one; the head's temperature
undoes that. A ReLU network is trained alike, without the price, to tell what the change of activation costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.planner import largest_output
from secure_infer.heads import Head, Linear, ReLU, Square
from secure_infer.heads.network import Network
from secure_infer_benchmarks.mnist.data import Digits, standardised

WIDTHS = (784, 128, 64, 10)
LABELS = [str(digit) for digit in range(10)]
VALIDATION = 10_000
"""The last images of the training set: what settings were chosen on."""
RANGE = 31.9
"""R of the trained head; typical margins between digits are a sixth of it."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides what is trained. starts: standard deviations of the weights of each layer at the start."""

    seed: int = 20260401
    epochs: int = 20
    batch: int = 256
    rate: float = 5e-3
    price: float = 1.2e-2
    starts: tuple[float, float, float] = (0.15, 0.3, 0.125)
    relu: bool = False

    @classmethod
    def of_relu(cls, seed: int, epochs: int) -> Settings:
        """The same training with ReLU, from its usual start (He et al., 2015) for inputs of norm one."""
        return cls(seed=seed, epochs=epochs, price=0.0, starts=(2**0.5, (2 / 128) ** 0.5, (2 / 64) ** 0.5), relu=True)


def train(training: Digits, test: Digits, settings: Settings, step: Callable[[int, int], None]) -> Head:
    """The head, its weights rounded to float16; accuracies of that very head are among its facts.

    step: told (done, total) epochs. Raises ModuleNotFoundError without torch. One thread, so that a seed decides the result.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            layers, by = _scaled(_fitted(torch, training, settings, step), settings)
    finally:
        torch.set_num_threads(threads)
    fit, validation = slice(None, -VALIDATION), slice(-VALIDATION, None)
    head = _head(layers, settings)
    facts: dict[str, Any] = {
        "task": "MNIST digits from images of norm one, fc 784-128-64-10",
        "activation": "relu" if settings.relu else "square",
        "seed": settings.seed,
        "epochs": settings.epochs,
        "range_price": settings.price,
        "images": {"train": len(training.images) - VALIDATION, "validation": VALIDATION, "test": len(test.images)},
        "accuracy": {
            "train": accuracy(head, Digits(training.images[fit], training.digits[fit])),
            "validation": accuracy(head, Digits(training.images[validation], training.digits[validation])),
            "test": accuracy(head, test),
        },
    }
    return _head(layers, settings, by, facts)


def accuracy(head: Head, digits: Digits) -> float:
    """Share of images that the plaintext head gives their digit."""
    return float((head.evaluate(standardised(digits.images)).argmax(axis=1) == digits.digits).mean())


def random_head(seed: int = 0) -> Head:
    """Squares with random weights, for machines without the trained head: costs alike, and knows no digits."""
    rng = np.random.default_rng(seed)
    shapes = zip(WIDTHS[1:], WIDTHS[:-1], (2.0, 0.5, 1.0), strict=True)
    layers = [Linear(rng.normal(size=(out, into)) * size / np.sqrt(into)) for out, into, size in shapes]
    return _head(_scaled(layers, Settings())[0], Settings())


def _head(layers: list[Linear], settings: Settings, by: float = 1.0, facts: dict[str, Any] | None = None) -> Head:
    activation = ReLU() if settings.relu else Square()
    first, second, last = layers
    return Head(
        [first, activation, second, activation, last],
        labels=LABELS,
        input_bound=1.0,
        input_norm=1.0,
        temperature=by,
        facts=facts,
    )


def _fitted(torch: Any, training: Digits, settings: Settings, step: Callable[[int, int], None]) -> list[Linear]:
    nn = torch.nn
    count = len(training.images) - VALIDATION
    x = torch.from_numpy(standardised(training.images[:count]).astype(np.float32))
    y = torch.from_numpy(training.digits[:count].astype(np.int64))
    layers = [nn.Linear(a, b) for a, b in pairwise(WIDTHS)]
    for layer, start in zip(layers, settings.starts, strict=True):
        nn.init.normal_(layer.weight, std=start)
        nn.init.zeros_(layer.bias)
    first, second, last = layers
    activation = torch.relu if settings.relu else torch.square
    limit = _Range(torch, layers)
    parameters = [p for layer in layers for p in layer.parameters()]
    batches = count // settings.batch
    optimiser = torch.optim.Adam(parameters, lr=settings.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.rate, total_steps=max(2, settings.epochs * batches)
    )
    for epoch in range(settings.epochs):
        order = torch.randperm(count)
        for batch in range(batches):
            chosen = order[batch * settings.batch : (batch + 1) * settings.batch]
            logits = last(activation(second(activation(first(x[chosen])))))
            loss = nn.functional.cross_entropy(logits, y[chosen])
            if settings.price:
                loss = loss + settings.price * limit().mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
        step(epoch + 1, settings.epochs)
    first, second, last = (Linear(_array(layer.weight), _array(layer.bias)) for layer in layers)
    # What all logits share changes no answer, yet takes up range.
    return [first, second, Linear(last.weight - last.weight.mean(axis=0), last.bias - last.bias.mean())]


def _scaled(layers: list[Linear], settings: Settings) -> tuple[list[Linear], float]:
    """The layers in the precision they are kept in, their logits multiplied by the second value."""
    first, second, last = layers
    by = 1.0
    if not settings.relu:
        head = _head(layers, settings)
        by = RANGE / largest_output(Network.of(head.layers), head.contract)
    kept = (first, second, Linear(by * last.weight, by * last.bias))
    return [Linear(_rounded(layer.weight), _rounded(layer.bias)) for layer in kept], by


class _Range:
    """R_k (10,) of the layers as they are now; see the module text."""

    def __init__(self, torch: Any, layers: list[Any]) -> None:
        self._torch, self._layers = torch, layers
        self._directions = torch.nn.functional.normalize(torch.randn(WIDTHS[2], WIDTHS[0]), dim=1)

    def __call__(self) -> Any:
        first, second, last = self._layers
        with self._torch.no_grad():
            moved = (self._directions @ first.weight.T * second.weight) @ first.weight
            self._directions = self._torch.nn.functional.normalize(moved, dim=1)
        curved = (self._torch.square(self._directions @ first.weight.T) * second.weight).sum(1).abs()
        straight = (2 * second.weight * first.bias @ first.weight).norm(dim=1)
        rest = second.bias + (second.weight * first.bias.square()).sum(1)
        z = curved + straight
        return last.weight.abs() @ (z.square() + 2 * rest.abs() * z)


def _array(tensor: Any) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().double().numpy())


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of 11 significant bits, far finer than training leaves them; files of such numbers compress to a quarter."""
    return values.astype(np.float16).astype(np.float64)
