"""The parts of the page's story: bytes as messages, bytes as pictures, questions checked, places refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_infer.ckks import seal
from secure_infer.ckks.residues import pack_residues
from secure_infer.errors import InvalidInput, SecureInferError, SettingsError, UnknownModel
from secure_infer_client.commands import web as command
from secure_infer_client.local_server import LocalServer
from secure_infer_client.web.api import Api
from secure_infer_client.web.connection import LONGEST_TEXT, MOST_UNITS, Connection
from secure_infer_client.web.figures import of_bytes, of_ciphertexts, of_vector
from secure_infer_client.web.passed import PREFACE, messages
from secure_infer_client.web.places import Local


def frame(content: bytes, *, kind: int = 0, flags: int = 0, stream: int = 1) -> bytes:
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


def message(content: bytes) -> bytes:
    return b"\0" + len(content).to_bytes(4, "big") + content


def test_the_worked_example_of_passed() -> None:
    assert messages(bytes.fromhex("000007 00 01 00000005 0000000002abcd")) == [b"\xab\xcd"]


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.integers(1, 30), st.booleans())
def test_messages_of_one_stream_in_frames_of_any_size(contents: list[bytes], size: int, begins: bool) -> None:
    body = b"".join(map(message, contents))
    frames = [frame(body[at : at + size]) for at in range(0, len(body), size)]
    noise = frame(b"headers", kind=1) + frame(b"\0\0\0\1", kind=8, stream=0)
    assert messages((PREFACE if begins else b"") + noise + noise.join(frames) + noise) == contents


def test_two_streams_are_kept_apart() -> None:
    one, two = message(b"a" * 9), message(b"b" * 9)
    data = frame(one[:5]) + frame(two[:7], stream=3) + frame(one[5:]) + frame(two[7:], stream=3)
    assert messages(data) == [b"a" * 9, b"b" * 9]


@given(st.binary(max_size=200))
def test_other_bytes_are_no_messages_and_no_error(data: bytes) -> None:
    assert isinstance(messages(data), list)
    assert messages(frame(message(b"x"), flags=8) + data) == []


def test_pictures_of_bytes() -> None:
    flat = of_bytes(bytes(range(256)) * 8)
    assert (flat["bytes"], flat["unevenness"], flat["histogram"]) == (2048, 0.0, [8] * 256)
    row = np.full(384, 0.05)
    assert of_vector(row)["values"] == [0.05] * 384
    assert of_vector(row)["unevenness"] > 100


def test_zeros_of_the_format_are_left_out_of_a_ciphertexts_picture() -> None:
    drawn = np.random.default_rng(1)
    for bits, filled in ((58, True), (60, False)):
        ring = seal.parameters(8192, (bits,) * 2, 60)
        residues = np.stack([drawn.integers(0, prime, ring.degree, dtype=np.uint64) for prime in ring.data_primes])
        found = [pack_residues(residues, ring.data_primes) + drawn.bytes(64)]
        seen = of_ciphertexts(found, ring)
        assert (seen["filled"], seen["bytes"]) == (filled, len(found[0]))
        assert seen["hex"] == found[0][:192].hex()
        assert 0.5 < seen["unevenness"] < 1.5
        assert not filled or of_bytes(found[0])["unevenness"] > 2


class Nowhere:
    """A place that counts what would be opened."""

    models: Sequence[str] = ("m",)
    local = True

    def __init__(self) -> None:
        self.opened: list[tuple[str, str]] = []

    def states(self) -> dict[str, tuple[str, str]]:
        return {"ckks": ("ready", "here"), "mpc": ("absent", "not here")}

    def open(self, scheme: str, model: str) -> Connection:
        self.opened.append((scheme, model))
        raise UnknownModel("nowhere")

    def plaintext(self, model: str) -> None:
        return None

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("state", {"x": "y"}),
        ("classify", {}),
        ("classify", {"scheme": "ckks", "model": "m"}),
        ("classify", {"scheme": "ckks", "model": "m", "text": 1}),
        ("classify", {"scheme": "ckks", "model": "m", "text": "t", "more": ""}),
        ("classify", {"scheme": "rsa", "model": "m", "text": "t"}),
        ("explain", {"scheme": "ckks", "model": "m", "text": "t"}),
        ("close", {}),
        ("__class__", {}),
    ],
)
def test_other_questions_are_refused_before_anything_is_opened(name: str, asked: Mapping[str, Any]) -> None:
    place = Nowhere()
    with pytest.raises(SecureInferError):
        Api(place, scheme="ckks")(name, asked)
    assert not place.opened


def test_the_state_has_samples_and_schemes() -> None:
    state = Api(Nowhere(), scheme="mpc")("state", {})
    assert state["schemes"]["mpc"] == {"state": "absent", "sentence": "not here"}
    assert len(state["samples"]) == 4
    assert state["scheme"] == "mpc"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "type or paste"),
        (" \n", "type or paste"),
        ("Jane Miller", "nothing is left"),
        ("\ud800", "surrogate"),
        ("x" * (LONGEST_TEXT + 1), "characters"),
    ],
)
def test_texts_that_are_none(text: str, says: str) -> None:
    connection = object.__new__(Connection)  # refused before there has to be a client
    with pytest.raises(InvalidInput, match=says) as raised:
        connection.ask(text)
    assert text.strip() == "" or text not in raised.value.message
    with pytest.raises(InvalidInput):
        connection.explain(text, "words")


def test_long_explanations_are_refused() -> None:
    with pytest.raises(InvalidInput, match=f"at most {MOST_UNITS} words"):
        object.__new__(Connection).explain("fracture " * (MOST_UNITS + 1), "words")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--host", "0.0.0.0"],
        ["--port", "70000"],
        ["--key-ring", "x"],
        ["--privacy", "both-private"],
        ["--target", "127.0.0.1:1"],
        ["--target", "127.0.0.1:1", "--model", "m", "--models", "."],
        ["--models", "/nonexistent"],
        ["--model", "wdbc"],
    ],
    ids=lambda arguments: " ".join(arguments[:3]),
)
def test_wrong_options_are_one_clear_error(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(Local, "start", lambda *_: None)
    with pytest.raises((SettingsError, UnknownModel)):
        command.run([*arguments, "--no-browser"])


def test_a_model_without_text_and_a_server_that_is_not_there(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for target, model in ((server.address, "small"), ("127.0.0.1:9", "m")):
        options = ["--target", target, "--model", model, "--no-browser", "--timeout", "3"]
        with pytest.raises(SecureInferError) as raised:
            command.run(options)
        assert "text" in raised.value.message or target in raised.value.message
