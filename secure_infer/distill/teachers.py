"""A user's own model as a teacher: a head artifact, a TorchScript module, or any Python function. No pickle."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import InvalidInput, SettingsError
from secure_infer.heads import Head, Task

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Teacher:
    """`function` maps rows (B, d) to logits (B, K); call `logits`, which checks them. `head`: the artifact, if it is one."""

    name: str
    function: Callable[[Floats], Any]
    head: Head | None = None

    def logits(self, x: Floats) -> Floats:
        """Logits (B, K) of rows (B, d), float64; raises InvalidInput when the model does not take them or answers otherwise."""
        try:
            answer = np.asarray(self.function(x))
        except InvalidInput as error:
            raise InvalidInput(f"{self.name}: does not take these rows: {error.message}") from error
        except Exception as error:  # whatever a foreign model raises is the user's to read
            first = (str(error).strip().splitlines() or ["no message"])[-1]
            raise InvalidInput(
                f"{self.name}: failed on rows of shape {x.shape}: {type(error).__name__}: {first}"
            ) from error
        if answer.ndim != 2 or len(answer) != len(x) or not answer.shape[1] or answer.dtype.kind not in "fiu":
            raise InvalidInput(
                f"{self.name}: for rows {x.shape} it returned {answer.dtype} of shape {answer.shape}; "
                f"expected logits of shape ({len(x)}, K)"
            )
        if not np.isfinite(answer).all():
            raise InvalidInput(f"{self.name}: some of its logits are NaN or infinite")
        return answer.astype(np.float64)


def load(model: str, threads: int) -> Teacher:
    """The teacher that `model` names: NAME.head, NAME.pt (TorchScript), or package.module:function.

    A function is imported, and so its module runs, with the working directory on the path. Raises SettingsError when the
    name leads nowhere, InvalidHead for an unsound artifact, ModuleNotFoundError for a .pt without torch.
    """
    if model.endswith(".head"):
        head = Head.load(_file(model))
        if head.task is not Task.CLASSIFICATION:
            raise SettingsError(f"--from {model}: a {head.task} head; expected a classifier")
        return Teacher(model, head.evaluate, head)
    if model.endswith(".pt"):
        return Teacher(model, _torchscript(_file(model), threads))
    module, colon, name = model.partition(":")
    if not colon or not module or not name:
        raise SettingsError(
            f"--from {model}: expected NAME.head, a TorchScript NAME.pt, or package.module:function "
            "that maps rows (B, d) to logits (B, K)"
        )
    return Teacher(model, _function(model, module, name))


def _file(model: str) -> Path:
    path = Path(model)
    if not path.is_file():
        raise SettingsError(f"--from {model}: no such file")
    return path


def _torchscript(path: Path, threads: int) -> Callable[[Floats], Any]:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces successors of TorchScript; the files are still around
            module = torch.jit.load(str(path), map_location="cpu").eval()
    except (
        Exception
    ) as error:  # torch raises RuntimeError, ValueError or pickle's own errors for one and the same cause
        raise SettingsError(
            f"--from {path}: not a TorchScript file; save the module with torch.jit.trace(module, rows).save(...)"
        ) from error

    def answer(x: Floats) -> Any:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.no_grad():
                return module(torch.from_numpy(x).to(_dtype(module))).double().numpy()
        finally:
            torch.set_num_threads(before)

    def _dtype(module: Any) -> Any:
        return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)

    return answer


def _function(model: str, module: str, name: str) -> Callable[[Floats], Any]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        # Said here: a missing package of the user's own must not be taken for one of ours.
        raise SettingsError(f"--from {model}: no module named {error.name!r}; looked in {here} and the path") from error
    except Exception as error:  # the user's module raised while it was imported
        raise SettingsError(f"--from {model}: importing it failed: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)
    found = getattr(imported, name, None)
    if not callable(found):
        raise SettingsError(f"--from {model}: module {module} has no function {name!r}; expected one of rows (B, d)")
    function: Callable[[Floats], Any] = found
    return function
