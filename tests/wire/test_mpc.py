"""Programs of two parties cross the wire unchanged, and nothing else does."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_infer.errors import PlanRefused
from secure_infer.heads import ReLU
from secure_infer.mpc.compiler import compile_head
from secure_infer.mpc.program import Answers, Program, Weights
from secure_infer.v1 import mpc_pb2
from secure_infer.wire.mpc import MAX_DESCRIPTION, program_from_proto, program_to_proto
from shared import hidden_head, linear_head

HEADS = {"affine": linear_head(8, 3), "square": hidden_head((8, 6, 3)), "relu": hidden_head((8, 6, 3), ReLU())}


def message(description: bytes) -> mpc_pb2.SharedProgram:
    return mpc_pb2.SharedProgram(digest=hashlib.sha256(description).digest(), description=description)


@pytest.mark.parametrize("answers", Answers)
@pytest.mark.parametrize("weights", Weights)
@pytest.mark.parametrize("name", HEADS)
def test_programs_round_trip(name: str, weights: Weights, answers: Answers) -> None:
    program = compile_head(HEADS[name], weights=weights, answers=answers).program
    assert program_from_proto(program_to_proto(program)) == program


def test_the_digest_is_recomputed() -> None:
    program = compile_head(HEADS["affine"]).program
    other = replace(program, fraction=program.fraction - 1)
    told = program_to_proto(program)
    told.description = other.as_json()
    with pytest.raises(PlanRefused, match="digest"):
        program_from_proto(told)


@pytest.mark.parametrize(
    "description",
    [
        b"",
        b"null",
        b"[" * 5000,
        b'{"steps": [1]}',
        b'{"steps": ["affine"]}',
        b'{"steps": [[]]}',
        b'{"steps": [{"op": "open"}]}',
        b" " * (MAX_DESCRIPTION + 1),
        b"\xff",
    ],
)
def test_what_is_no_program_is_refused(description: bytes) -> None:
    with pytest.raises(PlanRefused):
        program_from_proto(message(description))


FIELDS = sorted(json.loads(compile_head(HEADS["square"]).program.as_json()))
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=3)
)


@given(st.sampled_from(FIELDS), VALUES)
def test_a_changed_field_is_refused_or_makes_another_sound_program(name: str, value: Any) -> None:
    program = compile_head(HEADS["square"]).program
    entry = {**json.loads(program.as_json()), name: value}
    description = json.dumps(entry, sort_keys=True).encode()
    try:
        found = program_from_proto(message(description))
    except PlanRefused:
        return
    assert found.as_json() == description
    assert isinstance(found, Program)
