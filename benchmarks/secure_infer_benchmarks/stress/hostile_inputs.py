"""What is sent: input number INDEX of a run, a function of the seed, the index and what the servers offer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from secure_infer_benchmarks.stress import hostile_parsers, hostile_raw
from secure_infer_benchmarks.stress.hostile_ckks import REQUEST_ID, Key, upload
from secure_infer_benchmarks.stress.hostile_corpus import Corpus
from secure_infer_benchmarks.stress.hostile_layout import HOSTILE, STOLEN, STRANGER, UPLOADER
from secure_infer_benchmarks.stress.hostile_tokens import code_of, metadata_of
from secure_infer_benchmarks.stress.mutations import mutated, noisy

PACKAGE = "/secure_infer.v1."
OPEN = "inference.GRPCInferenceService/"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
SECONDS = 20.0
"""To answer any call."""

PARTIES = "party0 and party1"
"""The same message goes to both."""


@dataclass(frozen=True)
class Input:
    """One hostile input.

    surface: the row of the report. where: the process or port. method: gRPC's full name; "" for bytes on a socket or to a
    parser. messages: of the stream, or the pieces of bytes. seconds: until the caller gives up. hangs_up: after its messages
    it leaves, in place of waiting. streams: whether several answers may come. identity: whose certificate.
    """

    surface: str
    where: str
    method: str
    messages: Sequence[bytes]
    identity: str = HOSTILE
    metadata: Sequence[tuple[str, str | bytes]] = ()
    seconds: float = SECONDS
    hangs_up: bool = False
    streams: bool = False


Build = Callable[[Random, Corpus], Input]


def surface_of(seed: int, index: int) -> str:
    """The surface of an input: every thousand in a row have each as often as its share says."""
    return _SLOTS[(7919 * index + seed) % len(_SLOTS)]


def build(corpus: Corpus, seed: int, index: int) -> Input:
    """Input `index` of the run with that seed."""
    rng = Random(f"{seed}:{index}")
    surface = surface_of(seed, index)
    made = replace(SURFACES[surface][1](rng, corpus), surface=surface)
    if not made.method:
        return made
    if made.where == "ckks" and rng.random() < 0.15:
        made = replace(made, where="open")
    if rng.random() < 0.03:
        made = replace(made, metadata=metadata_of(rng, corpus.material.canary))
    draw = rng.random()
    if draw < 0.01:
        made = replace(made, hangs_up=True)
    elif draw < 0.015:
        made = replace(made, seconds=rng.choice((0.001, 0.005, 0.05)))
    elif draw < 0.02 and made.where == "ckks":
        made = replace(made, identity=STRANGER)
    return made


# Calls.


def _call(service_method: str, where: str = "ckks", identity: str = HOSTILE, *, streams: bool = False) -> Build:
    """A valid call of a method, its messages changed."""

    def make(rng: Random, corpus: Corpus) -> Input:
        stream = list(rng.choice(corpus.streams[service_method]))
        if len(stream) == 1:
            stream = [mutated(rng, _fresh(rng, stream[0]), corpus.material)]
        else:
            stream = _stream(rng, stream, corpus)
        return Input("", where, _path(service_method), stream, identity, streams=streams)

    return make


def _path(service_method: str) -> str:
    return "/" + service_method if "." in service_method else PACKAGE + service_method


def _any_of(prefix: str) -> Build:
    """Any method whose name begins so."""

    def make(rng: Random, corpus: Corpus) -> Input:
        return _call(rng.choice([name for name in corpus.streams if name.startswith(prefix)]))(rng, corpus)

    return make


def _administrative(rng: Random, corpus: Corpus) -> Input:
    """By a caller who is no operator, or with an operator's certificate and codes that are not hers."""
    made = _any_of("AdminService/")(rng, corpus)
    return made if rng.random() < 0.5 else replace(made, identity=STOLEN, metadata=code_of(rng))


def _stream(rng: Random, stream: list[bytes], corpus: Corpus) -> list[bytes]:
    """Messages of a stream changed, dropped, repeated, out of order, or too many."""
    at = rng.randrange(len(stream))
    change = rng.randrange(8)
    if change == 0:
        rng.shuffle(stream)
    elif change == 1:
        del stream[at]
    elif change == 2:
        stream.insert(at, stream[rng.randrange(len(stream))])
    elif change == 3:
        stream = stream[:at]
    elif change == 4:
        stream += [stream[-1]] * rng.choice((1, 3, 40))
    elif change == 5:
        stream[at] = noisy(rng, stream[at], corpus.material)
    else:
        stream[at] = mutated(rng, stream[at], corpus.material)
    return stream


def _infer(rng: Random, corpus: Corpus) -> Input:
    """Mostly of the small plan: what is evaluated by workers takes long, and says nothing more to most inputs."""
    streams = corpus.streams["InferenceService/Infer"]
    chosen = streams[0] if rng.random() < 0.93 else rng.choice(streams)
    changed = mutated(rng, _fresh(rng, chosen[0]), corpus.material)
    return Input("", "ckks", f"{PACKAGE}InferenceService/Infer", [changed])


def _fresh(rng: Random, message: bytes) -> bytes:
    """The message under a request id that was not used before, most of the time."""
    return message if rng.random() < 0.1 else message.replace(REQUEST_ID, rng.randbytes(8).hex().encode(), 1)


def _upload(rng: Random, corpus: Corpus) -> Input:
    """Uploads with messages changed, or with keys changed and a digest that fits."""
    key = _key(rng, corpus)
    if rng.random() < 0.4:
        stream = upload(key, key.data)
        stream = [mutated(rng, stream[0], corpus.material)] if len(stream) == 1 else _stream(rng, stream, corpus)
        return Input("", "ckks", f"{PACKAGE}KeyService/UploadKeys", stream, UPLOADER)
    data = noisy(rng, key.data, corpus.material) if rng.random() < 0.7 else rng.choice(corpus.material.blobs)
    size = rng.choice((None, None, None, len(key.data), 0, 1 << 40, len(data) + 1))
    offset = rng.choice((0, 0, 0, 1, len(data) // 2, 1 << 63))
    digest = rng.choice((None, None, None, key.digest, b"", rng.choice(corpus.material.digests)))
    stream = upload(key, data, size=size, digest=digest, offset=offset)
    if rng.random() < 0.2:  # many small chunks, some of them empty, and perhaps not all of them
        step = max(1, len(data) // rng.choice((2, 7, 50)))
        stream = stream[:1] + [b"\x12" + _length(part) + part for part in _parts(data[:5000], step)]
    return Input("", "ckks", f"{PACKAGE}KeyService/UploadKeys", stream, UPLOADER)


def _key(rng: Random, corpus: Corpus) -> Key:
    short = [key for key in corpus.keys if len(key.data) < 100_000]
    return rng.choice(short if rng.random() < 0.98 else corpus.keys)


def _parts(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)] + [b""]


def _length(part: bytes) -> bytes:
    size = len(part)
    return (
        bytes([size])
        if size < 128
        else bytes([size & 127 | 128, size >> 7 & 127])
        if size < 1 << 14
        else b"\xff\xff\x7f"
    )


def _share(rng: Random, corpus: Corpus) -> Input:
    """Halves of requests: to one party, where a sound one waits for another that does not come, or one to each."""
    message = rng.choice(corpus.streams["PartyService/InferShare"])[0]
    where = rng.choice(("party0", "party1", PARTIES, PARTIES))
    if where == PARTIES or rng.random() < 0.1:
        message = message.replace(REQUEST_ID, rng.randbytes(8).hex().encode(), 1)
    changed = mutated(rng, message, corpus.material)
    return Input("", where, f"{PACKAGE}PartyService/InferShare", [changed], seconds=rng.choice((SECONDS, 1.0)))


def _deal(rng: Random, corpus: Corpus) -> Input:
    """At the dealer without TLS, as either party; it deals once both are there."""
    stream = list(rng.choice(corpus.streams["DealerService/Deal"]))
    stream = stream if rng.random() < 0.1 else _stream(rng, stream, corpus)
    return Input("", "loose-dealer", f"{PACKAGE}DealerService/Deal", stream, seconds=2.0, hangs_up=True, streams=True)


def _health(rng: Random, corpus: Corpus) -> Input:
    message = b"\x0a" + b"\x1f" + b"secure_infer.v1.InferenceService"[:31]
    method, where = rng.choice(("Check", "Check", "Watch")), rng.choice(_PROCESSES)
    path = f"/grpc.health.v1.Health/{method}"
    watches = method == "Watch"
    return Input("", where, path, [noisy(rng, message, corpus.material)], hangs_up=watches, streams=watches)


def _unknown(rng: Random, corpus: Corpus) -> Input:
    path = rng.choice(
        (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            f"/{OPEN}RepositoryIndex",
            f"{PACKAGE}InferenceService/infer",
            f"{PACKAGE}AdminService/Delete",
            "/",
            "//",
            "/" + "a" * 3000,
            "/../../etc/passwd",
        )
    )
    stream = rng.choice([*corpus.streams["InferenceService/Infer"], *corpus.streams["ModelService/GetModel"]])
    message = mutated(rng, stream[0], corpus.material)
    return Input("", rng.choice(_PROCESSES), path, [message], streams="Reflection" in path)


def _tokens(rng: Random, corpus: Corpus) -> Input:
    stream = rng.choice(corpus.streams["ModelService/GetModel"])
    return Input(
        "", "ckks", f"{PACKAGE}ModelService/GetModel", stream, metadata=metadata_of(rng, corpus.material.canary)
    )


_PROCESSES = ("ckks", "open", "dealer", "party0", "party1", "loose-dealer", "loose-party0", "loose-party1")


def _raw(kind: Callable[[Random, Corpus], tuple[str, Sequence[bytes]]]) -> Build:
    def make(rng: Random, corpus: Corpus) -> Input:
        where, pieces = kind(rng, corpus)
        return Input("", where, "", pieces)

    return make


def _parser(name: str) -> Build:
    def make(rng: Random, corpus: Corpus) -> Input:
        return Input("", "", "", [hostile_parsers.PARSERS[name].make(rng, corpus)])

    return make


PARSED = "parser: "
FOLLOWED = "party lane, to party 1"
_BATCH, _PLAIN = "InferenceService/InferBatch", "InferenceService/EvaluatePlaintext"

SURFACES: dict[str, tuple[int, Build]] = {
    "Infer": (108, _infer),
    "InferBatch": (24, _call(_BATCH, streams=True)),
    "EvaluatePlaintext": (16, _call(_PLAIN, "open")),
    "GetModel": (22, _call("ModelService/GetModel")),
    "ListModels": (10, _call("ModelService/ListModels")),
    "UploadKeys": (40, _upload),
    "GetUpload": (12, _call("KeyService/GetUpload", identity=UPLOADER)),
    "ListKeys": (8, _call("KeyService/ListKeys", identity=UPLOADER)),
    "DeleteKeys": (14, _call("KeyService/DeleteKeys", identity=UPLOADER)),
    "bearer tokens": (16, _tokens),
    "Health": (12, _health),
    "AdminService": (4, _administrative),
    "ModelInfer": (18, _call(f"{OPEN}ModelInfer")),
    "other Open Inference": (6, _any_of(OPEN)),
    "reflection": (2, _call(REFLECTION, streams=True)),
    "other methods": (8, _unknown),
    "InferShare": (54, _share),
    "GetModel of a party": (14, _call("ModelService/GetModel", "party0")),
    "Deal, not a party": (8, _call("DealerService/Deal", "dealer", streams=True)),
    "Deal": (24, _deal),
    "party lane, to party 0": (22, _raw(hostile_raw.lane)),
    FOLLOWED: (4, _raw(hostile_raw.starts)),
    "bytes at any port": (26, _raw(hostile_raw.anywhere)),
    "HTTP/2 frames": (40, _raw(hostile_raw.http2)),
    "metrics port": (8, _raw(hostile_raw.metrics)),
    **{PARSED + name: (parser.share, _parser(name)) for name, parser in hostile_parsers.PARSERS.items()},
}
"""Inputs of each thousand, and how one is made."""

_SLOTS = [name for name, (share, _) in SURFACES.items() for _ in range(share)]
ON_SOCKETS = sum(share for name, (share, _) in SURFACES.items() if not name.startswith(PARSED)) / len(_SLOTS)
"""Part of the inputs that goes through sockets."""
