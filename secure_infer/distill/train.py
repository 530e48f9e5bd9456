"""Training: an ensemble of teachers, then two students small enough to evaluate under encryption.

Distillation after Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015): a student's loss is
`hard` cross-entropy plus (1 - hard) T² cross-entropy against the teachers' softmax at temperature T.

Encryption pays for range, so: one common input scale instead of z-scores (whose 1/sd makes monsters of nearly constant
features), L2 on the weights, output rows centred across classes, and features that do not vary get weight zero.
Torch is imported by the functions. They leave torch's global generator and thread count as they found them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.heads import Linear, Polynomial

Floats = NDArray[np.float64]
Step = Callable[[int, int], None]
"""Progress: (done, total) steps of the model in training."""

CONSTANT = 1e-4
"""A feature whose standard deviation over the training rows is smaller gets weight zero."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides what is trained; chosen on validation rows of the default seed's split (the linear
    penalty: by cross-validation over its training and validation rows).

    every: train on every n-th row only (a smoke test). students: seeds of each way of training that are compared.
    penalties: L2 penalties of the linear head whose ranges are compared.
    """

    seed: int = 20260401
    threads: int = 2
    teachers: int = 3
    teacher_epochs: int = 20
    teacher_width: int = 1024
    distill_temperature: float = 2.0
    linear_hard: float = 1.0
    linear_iterations: int = 150
    linear_penalty: float = 3e-5
    quadratic_hard: float = 0.4
    quadratic_epochs: int = 30
    quadratic_units: int = 256
    quadratic_penalty: float = 1e-3
    quadratic_dropout: float = 0.2
    students: int = 3
    penalties: tuple[float, ...] = (3e-6, 1e-5, 3e-5, 1e-4, 3e-4)
    every: int = 1

    @classmethod
    def quick(cls, seed: int, threads: int) -> Settings:
        """One small teacher, few epochs, a tenth of the rows: exercises everything in seconds, and trains poorly."""
        return cls(
            seed=seed, threads=threads, teachers=1, teacher_epochs=3, teacher_width=128,
            linear_iterations=20, quadratic_epochs=5, students=1, penalties=(1e-5, 1e-4), every=10,
        )  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """x (n, d) float32; its first m rows are labelled with y (m,) int64, the others are transfer text."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    classes: int

    @property
    def mean(self) -> NDArray[np.float32]:
        """(d,), over the labelled rows."""
        return np.asarray(self.x[: len(self.y)].mean(axis=0))

    @property
    def alive(self) -> NDArray[np.float32]:
        """(d,): 1 where the feature varies over the labelled rows, 0 where it is constant."""
        return np.asarray(self.x[: len(self.y)].std(axis=0) >= CONSTANT, dtype=np.float32)


@contextmanager
def _torch(settings: Settings, seed: int) -> Iterator[Any]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield torch
    finally:
        torch.set_num_threads(threads)


def teacher(rows: Rows, others: list[NDArray[np.float32]], settings: Settings, index: int, step: Step) -> list[Floats]:
    """Logits (n, K) of teacher `index` on `rows.x` and on each of `others`: d-w-w-K with GELU and dropout, AdamW."""
    with _torch(settings, settings.seed + index) as torch:
        nn = torch.nn
        deviation = np.where(rows.alive > 0, rows.x[: len(rows.y)].std(axis=0), 1).astype(np.float32)

        def scaled(x: NDArray[np.float32]) -> Any:
            return torch.from_numpy((x - rows.mean) / deviation * rows.alive)

        width = settings.teacher_width
        model = nn.Sequential(
            nn.Linear(rows.x.shape[1], width), nn.GELU(), nn.Dropout(0.4),
            nn.Linear(width, width), nn.GELU(), nn.Dropout(0.4),
            nn.Linear(width, rows.classes),
        )  # fmt: skip
        x, y = scaled(rows.x[: len(rows.y)]), torch.from_numpy(rows.y)

        def loss(chosen: Any) -> Any:
            return nn.functional.cross_entropy(model(x[chosen]), y[chosen], label_smoothing=0.05)

        model.train()
        _minimise(torch, list(model.parameters()), loss, len(y), settings.teacher_epochs, 1e-3, 5e-2, step)
        model.eval()
        with torch.no_grad():
            return [model(scaled(part)).double().numpy() for part in (rows.x, *others)]


def linear(rows: Rows, teacher_logits: Floats, settings: Settings, step: Step) -> tuple[Linear]:
    """The linear head: a convex problem, solved in float64 by L-BFGS over the labelled rows.

    In cross-validation by category the teachers' answers did not make a linear head better, nor did transfer rows on
    the validation split, so it learns from the labels: `linear_hard` = 1 gives the teachers no weight.
    """
    with _torch(settings, settings.seed) as torch:
        count = len(rows.y)
        x = torch.from_numpy(((rows.x[:count] - rows.mean) * rows.alive).astype(np.float64))
        loss_of = _distillation(torch, rows, teacher_logits, settings.linear_hard, settings, torch.float64)
        weight = torch.zeros(rows.classes, x.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(rows.classes, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS(
            [weight, bias], max_iter=settings.linear_iterations, history_size=20, line_search_fn="strong_wolfe",
            tolerance_grad=1e-6, tolerance_change=1e-9,
        )  # fmt: skip
        everything = torch.arange(count)
        calls = 0

        def closure() -> Any:
            nonlocal calls
            calls += 1
            step(min(calls, settings.linear_iterations), settings.linear_iterations)
            optimiser.zero_grad()
            total = loss_of(x @ weight.T + bias, everything) + settings.linear_penalty * weight.square().sum()
            total.backward()
            return total

        optimiser.step(closure)
        w, b = weight.detach().numpy() * rows.alive, bias.detach().numpy()
        b = b - w @ rows.mean.astype(np.float64)
        return (_centred(w, b),)


def quadratic(rows: Rows, teacher_logits: Floats, settings: Settings, step: Step) -> tuple[Linear, Polynomial, Linear]:
    """The quadratic student d-h-K with a learned c0 + c1 z + c2 z² in each hidden unit; learns from transfer rows too.

    c2 starts small and gradients are clipped: a square unit that starts large does not recover.
    """
    with _torch(settings, settings.seed) as torch:
        nn = torch.nn
        scale = 20.0  # centred unit embeddings have entries near 0.05
        units = settings.quadratic_units
        x = torch.from_numpy(((rows.x - rows.mean) * rows.alive * scale).astype(np.float32))
        loss_of = _distillation(torch, rows, teacher_logits, settings.quadratic_hard, settings, torch.float32)
        first, last = nn.Linear(x.shape[1], units), nn.Linear(units, rows.classes)
        nn.init.normal_(first.weight, std=0.5 / x.shape[1] ** 0.5)
        c0, c1, c2 = (nn.Parameter(torch.full((units,), start)) for start in (0.0, 0.5, 0.1))

        def loss(chosen: Any) -> Any:
            z = first(x[chosen])
            hidden = nn.functional.dropout(c0 + c1 * z + c2 * z * z, settings.quadratic_dropout)
            penalty = first.weight.square().sum() + last.weight.square().sum()
            return loss_of(last(hidden), chosen) + settings.quadratic_penalty * penalty

        parameters = [*first.parameters(), *last.parameters(), c0, c1, c2]
        _minimise(torch, parameters, loss, len(x), settings.quadratic_epochs, 2e-3, 1e-2, step)

        def array(tensor: Any) -> Floats:
            return np.asarray(tensor.detach().double().numpy())

        w = array(first.weight) * rows.alive * scale
        return (
            Linear(w, array(first.bias) - w @ rows.mean.astype(np.float64)),
            Polynomial(np.stack([array(c0), array(c1), array(c2)], axis=1)),
            _centred(array(last.weight), array(last.bias)),
        )


def _distillation(
    torch: Any, rows: Rows, teacher_logits: Floats, share: float, settings: Settings, dtype: Any
) -> Callable[[Any, Any], Any]:
    """loss(logits of chosen rows, their indices): `share` of it from the label, the rest from the teachers.

    Transfer rows, which have no label, learn from the teachers alone.
    """
    heat = settings.distill_temperature
    soft = torch.softmax(torch.from_numpy(teacher_logits).to(dtype) / heat, 1)
    hard = torch.zeros(len(soft), dtype=dtype)
    hard[: len(rows.y)] = share
    label = torch.zeros(len(soft), dtype=torch.int64)
    label[: len(rows.y)] = torch.from_numpy(rows.y)
    functional = torch.nn.functional

    def loss(logits: Any, chosen: Any) -> Any:
        told = functional.cross_entropy(logits, label[chosen], reduction="none")
        taught = -heat * heat * (soft[chosen] * functional.log_softmax(logits / heat, 1)).sum(1)
        return (hard[chosen] * told + (1 - hard[chosen]) * taught).mean()

    return loss


def _minimise(
    torch: Any,
    parameters: list[Any],
    loss: Callable[[Any], Any],
    count: int,
    epochs: int,
    rate: float,
    decay: float,
    step: Step,
) -> None:
    """AdamW on batches of 256 with a one-cycle learning rate and gradients clipped to norm 1."""
    batches = max(1, count // 256)
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * batches)
    for epoch in range(epochs):
        order = torch.randperm(count)
        for batch in range(batches):
            optimiser.zero_grad()
            loss(order[batch * 256 : (batch + 1) * 256]).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
        step(epoch + 1, epochs)


def _centred(weight: Floats, bias: Floats) -> Linear:
    """What all logits share changes no answer, yet takes up range: subtract it."""
    return Linear(weight - weight.mean(axis=0), bias - bias.mean())
