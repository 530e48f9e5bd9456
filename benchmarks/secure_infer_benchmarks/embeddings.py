"""Texts to rows, as `Client.classify` makes them; kept in the user's cache, for thousands of texts take a minute."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from secure_infer import whole
from secure_infer.ckks.calibration import cache_path
from secure_infer.heads import Head
from secure_infer_benchmarks.synthetic import inputs
from secure_infer_client import samples
from secure_infer_client.text.deidentify import deidentify
from secure_infer_client.text.embed import MiniLM

SIZE = 256
"""Texts embedded between two moves of the bar."""


def embedded(texts: Sequence[str]) -> NDArray[np.float64]:
    """Rows (B, 384) of texts, de-identified first; from the cache where the same texts were embedded before, in that order.

    Raises ModuleNotFoundError without the extra `text`.
    """
    kept = [deidentify(text).text for text in texts]
    digest = hashlib.sha256("\n".join([MiniLM.identity, *kept]).encode()).hexdigest()[:16]
    costs = cache_path()
    path = None if costs is None else costs.with_name(f"embeddings-{digest}.npy")
    if path is not None:
        with suppress(OSError, ValueError):
            rows = np.load(path, allow_pickle=False)
            if rows.shape == (len(kept), MiniLM.dimension):
                return np.asarray(rows, dtype=np.float64)
    embed = MiniLM()
    with tqdm(total=len(kept), desc="embedding", leave=False, disable=None) as bar:
        chunks = []
        for start in range(0, len(kept), SIZE):
            chunks.append(embed(kept[start : start + SIZE]))
            bar.update(len(chunks[-1]))
    rows = np.concatenate(chunks)
    if path is not None:
        data = io.BytesIO()
        np.save(data, rows)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            whole.write(path, data.getvalue())
    return rows.astype(np.float64)


def rows_of(head: Head, count: int) -> NDArray[np.float64]:
    """At most `count` rows (B, d) for a head: held-out texts' embeddings where it has an embedder and that is installed, else
    random ones of the largest norm allowed."""
    if head.embedder is not None:
        with suppress(ModuleNotFoundError):
            return head.contract.check(embedded([sample.text for sample in samples.load()[:count]]))
    return inputs(head.features, count) * min(1.0, head.contract.largest_norm)
