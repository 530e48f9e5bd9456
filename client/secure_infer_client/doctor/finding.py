"""What one look found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from secure_infer.errors import SecureInferError


class State(StrEnum):
    """NOTE: it works, and somebody may want to know. PROBLEM: it does not."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """look: what was looked at. found: in words. advice: what to do; empty where nothing is to be done."""

    look: str
    state: State
    found: str
    advice: str = ""

    def line(self) -> str:
        mark = {State.OK: "ok  ", State.NOTE: "note", State.PROBLEM: "FAIL"}[self.state]
        return f"{mark}  {self.look:<14} {self.found}" + (f"\n      {'':<14} -> {self.advice}" if self.advice else "")


def ok(look: str, found: str) -> Finding:
    return Finding(look, State.OK, found)


def note(look: str, found: str, advice: str = "") -> Finding:
    return Finding(look, State.NOTE, found, advice)


def problem(look: str, found: str, advice: str) -> Finding:
    return Finding(look, State.PROBLEM, found, advice)


def tried(look: str, advice: str, work: Callable[[], Finding]) -> Finding:
    """What `work` finds; what it raises is a problem, with that advice."""
    try:
        return work()
    except SecureInferError as error:
        return problem(look, f"{error.message} [{error.reason}]", advice)
    except Exception as error:  # a doctor outlives whatever is wrong with the patient
        return problem(look, f"{type(error).__name__}", advice)
