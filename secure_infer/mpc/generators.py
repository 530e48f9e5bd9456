"""A guard for processes that handle shares: Python's, numpy's and torch's generators refuse to be drawn from.

They are predictable, and one draw where a mask was meant would give a share away. Ours come from `secure_infer.mpc.streams`.
The guard is for accidents, in libraries above all: it replaces names, and a caller set on it can get round it. An instance
of `random.Random` that a library keeps for itself still works: `tempfile` chooses its names by one.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from secure_infer.errors import ForbiddenRandomness

_READS = {"getstate", "get_state"}
_CLASSES_KEPT = {"Random", "SystemRandom"}

TORCH_FUNCTIONS = (
    *(
        "rand",
        "rand_like",
        "randn",
        "randn_like",
        "randint",
        "randint_like",
        "randperm",
        "normal",
        "bernoulli",
        "binomial",
    ),
    *("multinomial", "poisson", "dropout", "dropout_", "alpha_dropout", "alpha_dropout_", "feature_dropout"),
    *("feature_dropout_", "feature_alpha_dropout", "feature_alpha_dropout_", "native_dropout", "rrelu", "rrelu_"),
    *("manual_seed", "seed", "Generator"),
)
TORCH_METHODS = (
    *(
        "bernoulli",
        "bernoulli_",
        "multinomial",
        "normal_",
        "uniform_",
        "random_",
        "exponential_",
        "geometric_",
        "cauchy_",
    ),
    "log_normal_",
)

_forbidden = False


def forbid() -> None:
    """Refuse all of them in this process, for good; torch's when it is loaded, or else once `refuse_loaded` is called."""
    global _forbidden
    _forbidden = True
    _replace(random, "random", [name for name in random.__all__ if name not in _CLASSES_KEPT])
    _replace(np.random, "numpy.random", np.random.__all__)
    refuse_loaded()


def refuse_loaded() -> None:
    """After `forbid`, refuse torch's generators where torch was loaded since; nothing otherwise."""
    torch = sys.modules.get("torch")
    if _forbidden and torch is not None and hasattr(torch, "Tensor"):
        _replace(torch, "torch", TORCH_FUNCTIONS)
        _replace(torch.Tensor, "torch.Tensor", TORCH_METHODS)


def _replace(owner: Any, prefix: str, names: Any) -> None:
    for name in names:
        found = getattr(owner, name)
        if name in _READS or getattr(found, "refuses", False) or not callable(found):
            continue
        refuse = _refusing(f"{prefix}.{name}")
        # A class stays one: other modules test instances against it.
        setattr(
            owner, name, type(name, (), {"__new__": refuse, "refuses": True}) if isinstance(found, type) else refuse
        )


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        raise ForbiddenRandomness(
            f"{name} was drawn from; randomness here comes from the operating system or a keyed stream"
        )

    refuse.refuses = True  # type: ignore[attr-defined]
    return refuse


@contextmanager
def untouched() -> Iterator[None]:
    """Raises ForbiddenRandomness after the block if a global generator of `random`, numpy or torch moved in it."""
    before = _states()
    yield
    moved = [name for name, state in _states().items() if before.get(name, state) != state]
    if moved:
        raise ForbiddenRandomness(f"drawn from: {', '.join(moved)}")


def _states() -> dict[str, object]:
    found: dict[str, object] = {"random": random.getstate()}
    _, key, position, gauss, cached = np.random.get_state(legacy=True)
    found["numpy.random"] = (bytes(np.asarray(key)), position, gauss, cached)
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "default_generator"):
        found["torch"] = bytes(torch.default_generator.get_state().numpy())
    return found
