"""One client's calls as its record takes them: begun, and answered or failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from secure_infer.errors import SecureInferError
from secure_infer_client.record.record import Record


@dataclass
class Outcome:
    """What a call fills in as it learns it. model_digest: as pinned before, until one answers. answers: in words."""

    model_digest: str
    keeps_answers: bool
    plan: str | None = None
    answers: list[str] | None = None

    def of(self, plan: str, model_digest: str, answers: Callable[[], Iterable[str]]) -> None:
        """The call was answered, by that model. answers: asked for only where the record keeps them."""
        self.plan, self.model_digest = plan, model_digest
        if self.keeps_answers:
            self.answers = list(answers())


class Recording:
    """What all calls of a client have in common; without a record, nothing is kept."""

    def __init__(self, record: Record | None, *, scheme: str, targets: Sequence[str], model: str) -> None:
        self._record = record
        self._common = {"scheme": scheme, "targets": list(map(str, targets)), "model": model}

    @contextmanager
    def call(self, name: str, rows: int, model_digest: str) -> Iterator[Outcome]:
        """Around one call: its entry is written when it ends, before its answer is handed out. rows: texts, of texts.

        Raises InvalidInput, and then nothing is sent, when the ids that `Record.about` was given are not one a row.
        """
        outcome = Outcome(model_digest, self._record is not None and self._record.keeps_answers)
        if self._record is None:
            yield outcome
            return
        fields: dict[str, Any] = {"kind": "call", "call": name, **self._common, "rows": rows, **self._record.said(rows)}
        ended = "INTERRUPTED"
        try:
            yield outcome
            ended = "answered"
        except SecureInferError as error:
            ended = error.reason
            raise
        finally:
            fields |= {"model_digest": outcome.model_digest, "plan": outcome.plan, "outcome": ended}
            if ended == "answered" and outcome.answers is not None:
                fields["answers"] = outcome.answers
            self._record.append(fields)
