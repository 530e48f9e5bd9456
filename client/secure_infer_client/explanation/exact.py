"""Exact attributions of a linear head whose weights are published: its logit is a sum, and each summand is somebody's.

Of features: logit = b + sum_i w_i x_i. Of text under mean pooling: an embedding is a weighted sum of its tokens' vectors, so
that the logit is one too, and a word's share is that of its tokens. Nothing is sent, and nothing is estimated.

    w = [2, -1], b = 0.5, x = [3, 4]  ->  contributions [6, -4] and 0.5, together the logit 2.5
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from secure_infer.errors import ModelChanged, SettingsError, UnsupportedHead
from secure_infer.heads import Head, Linear, ModelSpec
from secure_infer_client.explanation.explanation import Explanation, Method
from secure_infer_client.explanation.target import Target
from secure_infer_client.text.embed import Embedder, MiniLM


def contributions(head: Head, x: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each feature adds to each logit: (B, K, d), and the bias (K,). Their sum over d, and the bias, is the logit.

    x: rows (B, d) that keep the head's contract. Raises UnsupportedHead unless the head is one linear layer.
    """
    layer = _linear(head)
    rows = head.contract.check(x)
    return rows[:, None, :] * layer.weight[None], np.asarray(layer.bias)


def explanation(
    spec: ModelSpec, head: Head, embedder: Embedder, units: Sequence[str], label: str | None
) -> Explanation:
    """Of the text that the units are, with blanks between them.

    Raises ModelChanged unless `head` is the very model of `spec`, UnsupportedHead unless it is linear, SettingsError for an
    embedder other than `MiniLM`, whose pooling is known.
    """
    if head.digest != spec.digest:
        raise ModelChanged(
            f"published: expected the head that {spec.name!r} serves, {spec.digest[:12]}…, got {head.digest[:12]}…"
        )
    layer = _linear(head)
    if not isinstance(embedder, MiniLM):
        raise SettingsError(
            "exact attributions need the packaged embedder, whose pooling is known; leave out `published`"
        )
    places, vectors, rest = embedder.parts(" ".join(units))
    whole = vectors.sum(axis=0) + rest
    target = Target.of(spec, layer.weight @ whole + layer.bias, label)
    weight, bias = target.sign * layer.weight[target.output], target.sign * float(layer.bias[target.output])
    unit_at = np.repeat(np.arange(len(units)), [len(unit) + 1 for unit in units])  # by character, each with its blank
    shares = np.zeros(len(units))
    np.add.at(shares, unit_at[[start for start, _ in places]], vectors @ weight)
    logit = float(weight @ whole + bias)
    return Explanation(target.label, tuple(units), shares, logit, 0.0, Method.EXACT, rest=float(rest @ weight + bias))


def _linear(head: Head) -> Linear:
    layers = head.layers
    if len(layers) != 1 or not isinstance(layers[0], Linear):
        raise UnsupportedHead(
            f"exact attributions need a head of one linear layer, got {', '.join(layer.kind for layer in layers)}; "
            "explain it by occlusion: leave out `published`"
        )
    return layers[0]
