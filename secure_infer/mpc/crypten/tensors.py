"""Words (numpy uint64) as CrypTen's tensors (torch int64) and back, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from secure_infer.mpc.ring import Words


def to_words(tensor: Any) -> Words:
    """An int64 tensor's elements, in its shape."""
    return np.asarray(tensor.contiguous().numpy()).view(np.uint64)


def from_words(words: Words) -> Any:
    """A tensor of its own memory: CrypTen computes in place."""
    return torch.from_numpy(np.array(words, order="C").view(np.int64))
