"""Bring your own embedder: a head trained on it names it, and a client with any other embedder is refused.

The embedder here hashes words into 256 numbers; any callable from a list of texts to an array (B, d) does, as long as it
runs on the client. Run it from anywhere: it trains, serves on loopback, classifies, and shows the refusal.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from secure_infer.errors import EmbedderMismatch
from secure_infer.heads import Head
from secure_infer_client import Client, samples
from secure_infer_client.local_server import LocalServer
from secure_infer_client.text import embedder

IDENTITY = "hashed-words/256/l2"
HASHER = HashingVectorizer(n_features=256, alternate_sign=False, norm="l2")


def main() -> None:
    hashed = embedder(IDENTITY, lambda texts: HASHER.transform(texts).toarray())
    known, new = samples.load()[:4000], samples.load()[4000:4008]
    model = LogisticRegression(C=10, max_iter=300).fit(hashed([s.text for s in known]), [s.label for s in known])
    head = Head.from_sklearn(model, input_bound=1.0, input_norm=1.0, embedder=IDENTITY)
    with tempfile.TemporaryDirectory() as directory:
        head.save(Path(directory) / "chapters.head")
        with LocalServer(Path(directory)) as server:
            with Client(server.address, model="chapters", embedder=hashed) as client:
                for sample, found in zip(new, client.classify([s.text for s in new]), strict=True):
                    sys.stdout.write(f"{found.probability:6.1%}  {found.label:<32} {sample.text}\n")
            with Client(
                server.address, model="chapters"
            ) as client:  # the packaged embedder: not what it was trained on
                try:
                    client.classify(["pneumonia"])
                except EmbedderMismatch as refusal:
                    sys.stdout.write(f"refused: {refusal.message}\n")


if __name__ == "__main__":
    main()
