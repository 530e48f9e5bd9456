"""CrypTen, imported on torch versions newer than itself.

Its reader of ONNX files imports parts of torch that have moved, and packages that nothing here needs. An empty module stands
in for it; models come to us as heads.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

_READER = "crypten.nn.onnx_converter"
_READS = ("from_onnx", "from_pytorch", "from_tensorflow", "TF_AND_TF2ONNX")


@lru_cache(maxsize=1)
def load() -> Any:
    """The package `crypten`. Takes seconds once, most of them for torch."""
    if _READER not in sys.modules:
        empty = ModuleType(_READER)
        empty.__dict__.update(dict.fromkeys(_READS))
        sys.modules[_READER] = empty
    return import_module("crypten")
