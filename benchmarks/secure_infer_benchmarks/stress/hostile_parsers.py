"""Parsers that take foreign bytes, by themselves: what comes out is a value or an error of the catalogue, and nothing else."""

from __future__ import annotations

import argparse
import json
import struct
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import zstandard

from secure_infer import pem
from secure_infer.ckks import sealio
from secure_infer.errors import SecureInferError
from secure_infer.heads import Head
from secure_infer.mpc import sharefile
from secure_infer.mpc.program import Program
from secure_infer_benchmarks.stress import hostile_raw
from secure_infer_benchmarks.stress.hostile_corpus import Corpus
from secure_infer_benchmarks.stress.hostile_layout import AUDIENCE, ISSUER, heads, public_pem, shared_heads
from secure_infer_benchmarks.stress.hostile_texts import json_changed, text_changed
from secure_infer_benchmarks.stress.hostile_tokens import token
from secure_infer_benchmarks.stress.mutations import noisy
from secure_infer_server.audit import chain
from secure_infer_server.callers import authority
from secure_infer_server.callers.tokens import Issuer, Tokens
from secure_infer_server.commands import serve
from secure_infer_server.config import Configuration
from secure_infer_server.guard import refuse_secret_streams
from secure_infer_server.mpc import recipes
from secure_infer_server.mpc.frames import HEADER, HELLO_BYTES, Frame, Hello, unpack_refusal
from secure_infer_server.mpc.halves import Half, Start
from secure_infer_server.workers.frames import Connection


@dataclass(frozen=True)
class Parser:
    """share: of a thousand inputs. make: an input. parse: raises SecureInferError, or whatever it must not."""

    share: int
    make: Callable[[Random, Corpus], bytes]
    parse: Callable[[bytes], object]


def parse(name: str, data: bytes) -> str:
    """Give bytes to a parser; returns the reason of its error, or "ok". Raises what no parser may raise."""
    try:
        PARSERS[name].parse(data)
    except SecureInferError as error:
        return error.reason
    return "ok"


# Frames between server and workers.


def _worker_frame(rng: Random, corpus: Corpus) -> bytes:
    parts = [rng.randbytes(rng.choice((0, 3, 40))) for _ in range(rng.randrange(3))]
    header = {"ready": 7, "answers": [1, 2], "parts": [len(part) for part in parts]}
    text = json_changed(rng, json.dumps(header).encode(), corpus.material)[:900_000]
    sizes = [len(text), sum(map(len, parts))]
    if rng.random() < 0.2:
        sizes[rng.randrange(2)] = rng.choice((0, 1, 1 << 20, (1 << 32) - 1))
    return struct.pack("<IQ", *sizes) + text + b"".join(parts)


def _read_worker_frame(data: bytes) -> None:
    connection = Connection(lambda header, parts: None, lambda: None)
    with memoryview(connection.get_buffer(-1)) as view:
        view[: len(data)] = data
    connection.buffer_updated(len(data))


# Frames between parties.


def _lane_bytes(rng: Random, corpus: Corpus) -> bytes:
    return noisy(rng, hostile_raw.hello(rng, rng.randrange(2)), corpus.material)


def _read_lane(data: bytes) -> None:
    whole = data[:HELLO_BYTES].ljust(HELLO_BYTES, b"\0")
    str(Frame.unpack(whole[: HEADER.size]))
    Hello.unpack(whole, 1)


def _refusal(rng: Random, corpus: Corpus) -> bytes:
    text = json.dumps({"reason": rng.choice(("PEER_FAILURE", "MODEL_CHANGED", "NONE")), "message": "no"}).encode()
    return json_changed(rng, text, corpus.material)


def _read_refusal(data: bytes) -> None:
    raise unpack_refusal(data)


def _start(rng: Random, corpus: Corpus) -> bytes:
    return json_changed(rng, rng.choice(corpus.starts), corpus.material)


def _read_start(data: bytes) -> None:
    start = Start.unpack(data)
    half = Half(start.request_id, "anonymous", "small", bytes(32), bytes(32), np.zeros((1, 8), np.uint64), 0.0)
    start.require(half)


def _recipe(rng: Random, corpus: Corpus) -> bytes:
    return json_changed(rng, rng.choice(corpus.recipes), corpus.material)


def _program(rng: Random, corpus: Corpus) -> bytes:
    return json_changed(rng, rng.choice(_files()["programs"]), corpus.material)


# Files.


@lru_cache(maxsize=1)
def _files() -> dict[str, Any]:
    """Sound files, made once, and where hostile ones are written."""
    kept = tempfile.TemporaryDirectory(prefix="hostile-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    folder = Path(kept.name)
    head = heads()["small"]
    head.save(folder / "sound.head")
    (folder / "other").mkdir()
    program, halves = sharefile.share_model(shared_heads()["squares"], [folder / "other", folder], "sound")
    key = authority.new_key()
    ca = authority.new_authority("hostile", 2)
    certificate = ca.sign("client", "x", [], key.public_key(), 1)
    (folder / "issuer.pem").write_bytes(authority.certificate_pem(certificate))
    return {
        "kept": kept,  # goes with the process
        "folder": folder,
        "head": (folder / "sound.head").read_bytes(),
        "share": halves[1].read_bytes(),
        "programs": [program.as_json()],
        "pem": authority.key_pem(key)
        + authority.certificate_pem(certificate)
        + authority.certificate_pem(ca.certificate),
        "tokens": _tokens(folder, key),
    }


def _tokens(folder: Path, key: Any) -> Tokens:
    (folder / "issuer.pem").write_bytes(public_pem(key))
    return Tokens([Issuer(ISSUER, AUDIENCE, folder / "issuer.pem")])


def _artifact(name: str) -> Callable[[Random, Corpus], bytes]:
    """A safetensors file with its JSON header changed, or any of its bytes."""

    def make(rng: Random, corpus: Corpus) -> bytes:
        data: bytes = _files()[name]
        if rng.random() < 0.4:
            return noisy(rng, data, corpus.material)
        (size,) = struct.unpack_from("<Q", data)
        header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
        if rng.random() < 0.6:
            inner = header["__metadata__"]["secure_infer"].encode()
            header["__metadata__"]["secure_infer"] = json_changed(rng, inner, corpus.material).decode(
                "utf-8", "replace"
            )
            text = json.dumps(header).encode()
        else:
            text = json_changed(rng, json.dumps(header).encode(), corpus.material)
        return struct.pack("<Q", len(text)) + text + rest

    return make


def _loaded(load: Callable[[Path], object], suffix: str) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        path = _files()["folder"] / f"hostile{suffix}"
        path.write_bytes(data)
        load(path)

    return read


_CONFIGURATION = b"""models = "models"
listen = "127.0.0.1:0"
insecure = true
smudging = 20
[policies.icd]
smudging = 24
error = 1.5
[callers]
policy = "policy.toml"
second_factor = { secrets = "otp.toml", attempts = 3 }
[[callers.issuers]]
name = "https://login.example"
audience = "secure-infer"
keys = "login.json"
algorithms = ["ES256"]
[budgets]
path = "budgets.sqlite"
daily = 2000
models.icd = { total = 500 }
[audit]
directory = "log"
checkpoint_seconds = 5
"""


@lru_cache(maxsize=1)
def _serve_parser() -> argparse.ArgumentParser:
    return serve._parser()


def _read_configuration(path: Path) -> object:
    return Configuration.read(path, _serve_parser())


# Credentials and logs.


def _token(rng: Random, corpus: Corpus) -> bytes:
    return token(rng).encode()


def _pem(rng: Random, corpus: Corpus) -> bytes:
    return text_changed(rng, _files()["pem"], corpus.material)


def _read_pem(data: bytes) -> None:
    with suppress(SecureInferError):
        pem.certificates("hostile", data)
    pem.key_pair("key", data, "chain", data)


def _audit_line(rng: Random, corpus: Corpus) -> bytes:
    line = chain.Chain().line(chain.CALL, 1.7e9, {"who": "cn:x", "method": "Infer", "records": 1})[:-1]
    if rng.random() < 0.5:
        return noisy(rng, line, corpus.material)
    return json_changed(rng, line, corpus.material).replace(b'", "', b'","').replace(b'": ', b'":')


def _secret_stream(rng: Random, corpus: Corpus) -> bytes:
    body = rng.choice(corpus.material.blobs)[:6000]
    mode = rng.choice((0, 1, 2, 3))
    packed = zlib.compress(body) if mode == 1 else zstandard.ZstdCompressor().compress(body) if mode == 2 else body
    magic, size, major, minor, _, reserved, _ = sealio.HEADER.unpack_from(sealio.stream(b""))
    whole = sealio.HEADER.pack(magic, size, major, minor, mode, reserved, size + len(packed)) + packed
    return noisy(rng, whole * rng.choice((1, 1, 70)), corpus.material)


PARSERS = {
    "worker frames": Parser(60, _worker_frame, _read_worker_frame),
    "lane frames": Parser(90, _lane_bytes, _read_lane),
    "refusals of a party": Parser(20, _refusal, _read_refusal),
    "requests of a party": Parser(40, _start, _read_start),
    "recipes": Parser(40, _recipe, recipes.foreign),
    "programs": Parser(20, _program, Program.from_json),
    "head artifacts": Parser(30, _artifact("head"), _loaded(Head.load, ".head")),
    "share files": Parser(20, _artifact("share"), _loaded(sharefile.load, ".share")),
    "configuration": Parser(
        30,
        lambda rng, corpus: text_changed(rng, _CONFIGURATION, corpus.material),
        _loaded(_read_configuration, ".toml"),
    ),
    "tokens": Parser(40, _token, lambda data: _files()["tokens"].identity(data.decode())),
    "PEM": Parser(20, _pem, _read_pem),
    "audit lines": Parser(60, _audit_line, chain.read),
    "SEAL streams": Parser(10, _secret_stream, refuse_secret_streams),
}
