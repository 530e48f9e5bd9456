"""The artifact file `NAME.head`: one safetensors file, its metadata holding a versioned JSON header. No pickle.

    metadata["secure_infer"] = {"format": 1, "layers": ["linear", ...], "labels": [...], "input_bound": 1.0,
                                "input_norm": 1.0, "public_layers": 0, "embedder": null, "temperature": 1.0,
                                "facts": {...}, "digest": "<sha256>"}
                               and "task", "abstain_below" where they are not the default
    tensors "0.weight", "0.bias", "1.coefficients", ...     float64, numbered by layer

The digest covers everything that changes an answer; it is checked on load, so a changed byte is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as from_bytes
from safetensors.numpy import save as to_bytes

from secure_infer import whole
from secure_infer.errors import InvalidHead
from secure_infer.heads.layers import layer_from
from secure_infer.heads.task import Task

if TYPE_CHECKING:
    from secure_infer.heads.head import Head

FORMAT = 1
MAX_BYTES = 1 << 30
_KEY = "secure_infer"


def _tensors(head: Head) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    return {f"{i}.{name}": array for i, layer in enumerate(head.layers) for name, array in layer.arrays().items()}


def _header(head: Head) -> dict[str, Any]:
    optional: dict[str, Any] = {} if head.task is Task.CLASSIFICATION else {"task": str(head.task)}
    if head.abstain_below is not None:
        optional["abstain_below"] = head.abstain_below
    return optional | {
        "format": FORMAT,
        "layers": [layer.kind for layer in head.layers],
        "labels": list(head.labels),
        "input_bound": head.contract.bound,
        "input_norm": head.contract.norm,
        "public_layers": head.public_layers,
        "embedder": head.embedder,
        "temperature": head.temperature.tolist(),
    }


def digest(head: Head) -> str:
    """SHA-256 (hex) of the header without facts, then of every tensor's name, shape and little-endian float64 bytes."""
    return hashed(json.dumps(_header(head), sort_keys=True).encode(), _tensors(head), "<f8")


def hashed(start: bytes, tensors: Mapping[str, np.ndarray[Any, Any]], dtype: str) -> str:
    """SHA-256 (hex) of `start`, then of every tensor's name, shape and bytes as `dtype`, in the order of their names."""
    sha = hashlib.sha256(start)
    for name, array in sorted(tensors.items()):
        sha.update(f"{name}{array.shape}".encode())
        sha.update(array.astype(dtype).tobytes())
    return sha.hexdigest()


def save(head: Head, path: Path) -> None:
    """Write `head` to `path`; the file appears whole or not at all."""
    write(path, _tensors(head), _header(head) | {"facts": head.facts, "digest": digest(head)})


def write(
    path: Path, tensors: Mapping[str, np.ndarray[Any, Any]], header: Mapping[str, Any], mode: int = 0o644
) -> None:
    """A safetensors file with a JSON header; it appears whole or not at all."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    data = to_bytes(contiguous, metadata={_KEY: json.dumps(header, sort_keys=True)})
    whole.write(path, data, mode)


def read(path: Path, what: str = "a head artifact") -> tuple[Any, dict[str, np.ndarray[Any, Any]]]:
    """The header and tensors of such a file, unchecked; raises InvalidHead when it is none.

    The file is read, not mapped: a map of a file that somebody cuts short meanwhile ends the process (SIGBUS).
    """
    try:
        if not path.is_file():
            raise InvalidHead(f"{path.name}: cannot be read (not a file)")
        if path.stat().st_size > MAX_BYTES:
            raise InvalidHead(f"{path.name}: {path.stat().st_size} bytes; expected at most {MAX_BYTES}")
        data = path.read_bytes()
        tensors = from_bytes(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
        if _KEY not in metadata:
            raise InvalidHead(f"{path.name}: the header is missing; it is not {what}")
        return json.loads(metadata[_KEY]), tensors
    except OSError as error:
        raise InvalidHead(f"{path.name}: cannot be read ({error.strerror or 'not a file'})") from error
    except (SafetensorError, TypeError, AttributeError, ValueError, RecursionError) as error:
        if isinstance(error, InvalidHead):
            raise
        raise InvalidHead(f"{path.name}: not {what}, or cut short (expected a safetensors file)") from error


def load(path: Path) -> dict[str, Any]:
    """The arguments of `Head` as stored in `path`; raises InvalidHead when the file is not a sound artifact."""
    from secure_infer.heads.head import Head

    header, tensors = read(path)
    try:
        if header.get("format") != FORMAT:
            raise InvalidHead(f"artifact format {header.get('format')!r}; this version reads format {FORMAT}")
        expected = header.pop("digest")
        del header["format"]
        kinds = header.pop("layers")
        layers = []
        for index, kind in enumerate(kinds):
            prefix = f"{index}."
            layers.append(
                layer_from(kind, {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
            )
        arguments: dict[str, Any] = header | {"layers": layers}
        found = Head(**arguments).digest
    except InvalidHead as error:
        raise InvalidHead(f"{path.name}: {error.message}") from error
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidHead(f"{path.name}: the header is missing or incomplete ({type(error).__name__})") from error
    if found != expected:
        raise InvalidHead(
            f"{path.name}: digest {found[:12]}… differs from the stored {str(expected)[:12]}…; the file was changed"
        )
    return arguments
