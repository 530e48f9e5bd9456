"""Text on the trusted side: de-identify, then embed. Nothing here opens a connection or writes a file."""

from secure_infer_client.text.deidentify import Deidentified, Removal, deidentify
from secure_infer_client.text.embed import Embedder, MiniLM, embedder

__all__ = ["Deidentified", "Embedder", "MiniLM", "Removal", "deidentify", "embedder"]
