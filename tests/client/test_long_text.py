"""Long texts: nothing is left out, and the policy is the caller's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from secure_infer import models
from secure_infer.errors import SettingsError
from secure_infer_client import Client
from secure_infer_client.local_server import LocalServer
from secure_infer_client.text import MiniLM

pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra `text`")

LONG = "Acute appendicitis with perforation and peritonitis. " * 20 + "Fracture of the shaft of the left femur. " * 20


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with LocalServer(models.path()) as server:
        yield server.address


def test_pieces_are_the_whole_text() -> None:
    packaged = MiniLM()
    pieces = packaged.split([LONG, "short", "  padded with   spaces "])
    assert [len(p) for p in pieces] == packaged.windows([LONG, "short", "  padded with   spaces "])
    assert len(pieces[0]) > 2
    assert "".join("".join(pieces[0]).split()) == "".join(LONG.split())
    assert pieces[1:] == [["short"], ["padded with   spaces"]]


def test_pooled_windows_are_counted_and_nothing_is_truncated(address: str) -> None:
    with Client(address, model="icd10-chapter-linear") as client:
        short, long = client.classify(["Fracture of femur", LONG])
        assert (short.windows, short.truncated, short.parts) == (1, False, ())
        assert long.windows > 2
        assert not long.truncated
        assert client.last_call.stats.records == 2


def test_windows_scored_apart_are_all_there(address: str) -> None:
    with Client(address, model="icd10-chapter-linear", long_text="apart") as client:
        short, long = client.classify(["Fracture of femur", LONG])
        assert short.parts == ()
        assert len(long.parts) == long.windows > 2
        assert client.last_call.stats.records == 1 + long.windows
        labels = {part.label.split()[0] for part in long.parts}
        assert {"XI", "XIX"} <= labels
        assert long.probability == max(part.probability for part in long.parts)
        assert np.array_equal(long.logits, max(long.parts, key=lambda p: p.probability).logits)


def test_unknown_policies_are_refused() -> None:
    with pytest.raises(SettingsError, match="pool, apart"):
        Client("127.0.0.1:1", model="m", long_text="cut")
