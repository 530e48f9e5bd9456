"""Programs of two parties as messages."""

from __future__ import annotations

from secure_infer.errors import PlanRefused
from secure_infer.mpc.program import Program
from secure_infer.v1 import mpc_pb2

MAX_DESCRIPTION = 64 << 10
"""Bytes of a program's JSON; 64 steps take a tenth of it."""


def program_to_proto(program: Program) -> mpc_pb2.SharedProgram:
    return mpc_pb2.SharedProgram(digest=bytes.fromhex(program.digest), description=program.as_json())


def program_from_proto(message: mpc_pb2.SharedProgram) -> Program:
    """The program; raises PlanRefused when the description is not a sound one, or not the one with that digest."""
    if len(message.description) > MAX_DESCRIPTION:
        raise PlanRefused(f"program: {len(message.description)} bytes; expected at most {MAX_DESCRIPTION}")
    program = Program.from_json(message.description)
    if bytes.fromhex(program.digest) != message.digest:
        raise PlanRefused("program: its digest is not that of its description")
    return program
