"""From texts to rows: identifiers removed, long texts split by the declared policy, all of it embedded. Nothing is sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import EmbedderMismatch, InvalidInput, SettingsError
from secure_infer.heads import ModelSpec, Task
from secure_infer_client.text.deidentify import Removal, deidentify
from secure_infer_client.text.embed import Embedder, MiniLM

POLICIES = ("pool", "apart")


@dataclass(frozen=True)
class Prepared:
    """rows (R, d), one a scored piece; owner[r] is the text that row r came from.

    removed: what de-identification took out of each text. windows: windows that each text was embedded in.
    """

    rows: NDArray[np.float64]
    owner: list[int]
    removed: list[tuple[Removal, ...]]
    windows: list[int]


class TextSide:
    """How one client treats text.

    embedder: None takes the packaged one when the model was trained on it.
    remove: take dates, contacts, identifiers, names and addresses out before embedding.
    long_text: "pool" averages the embeddings of a long text's windows into one row; "apart" scores every window by
    itself. Neither leaves text out.
    """

    def __init__(self, embedder: Embedder | None, *, remove: bool, long_text: str) -> None:
        if long_text not in POLICIES:
            raise SettingsError(f"long_text: expected one of {', '.join(POLICIES)}, got {long_text!r}")
        self._embedder, self._remove, self._apart = embedder, remove, long_text == "apart"

    def prepare(self, texts: Sequence[str], spec: ModelSpec, *, label_only: bool = False) -> Prepared:
        """Rows that keep the model's contract; raises InvalidInput, EmbedderMismatch, SettingsError.

        label_only: answers will be labels and nothing to weigh them by.
        """
        if isinstance(texts, str):
            raise InvalidInput("texts: expected a list of strings, got one string; pass [text]")
        embedder = self.embedder_for(spec)
        if self._apart and (label_only or spec.task is Task.REGRESSION):
            what = "labels alone tell none" if label_only else "a regression has none"
            raise SettingsError(f'long_text="apart" answers with the surest window, and {what}; use "pool"')
        cleaned = [deidentify(text) for text in texts] if self._remove else None
        kept = list(texts) if cleaned is None else [c.text for c in cleaned]
        removed: list[tuple[Removal, ...]] = (
            [() for _ in kept] if cleaned is None else [tuple(c.removed) for c in cleaned]
        )
        if self._apart and isinstance(embedder, MiniLM):
            split = embedder.split(kept)
            pieces = [piece for parts in split for piece in parts]
            windows = [len(parts) for parts in split]
            owner = [index for index, parts in enumerate(split) for _ in parts]
        else:
            pieces, owner = kept, list(range(len(kept)))
            windows = embedder.windows(kept) if isinstance(embedder, MiniLM) else [1] * len(kept)
        return Prepared(spec.contract.check(embedder(pieces)), owner, removed, windows)

    def cleaned(self, text: str) -> str:
        """One text with its identifiers removed, or as it is when that is switched off."""
        return deidentify(text).text if self._remove else text

    def pooled(self, texts: Sequence[str], spec: ModelSpec) -> NDArray[np.float64]:
        """Rows (B, d), one a text, whatever its length; nothing is removed any more."""
        return spec.contract.check(self.embedder_for(spec)(list(texts)))

    def embedder_for(self, spec: ModelSpec) -> Embedder:
        """The embedder that the model was trained on; raises EmbedderMismatch for any other."""
        if spec.embedder is None:
            raise EmbedderMismatch(
                f"model {spec.name!r} takes {spec.contract.features} features, not text; use predict"
            )
        given = (
            MiniLM.identity
            if self._embedder is None
            else getattr(self._embedder, "identity", "one without an identity")
        )
        if given != spec.embedder:
            raise EmbedderMismatch(
                f"model {spec.name!r} was trained on embedder {spec.embedder!r}, got {given!r}; "
                "its answers would be confident nonsense: pass embedder= with the right one"
            )
        if self._embedder is None:
            self._embedder = MiniLM()
        return self._embedder
