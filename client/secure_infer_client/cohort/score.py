"""Reads, prepares, scores and commits, chunk by chunk: while one is scored, the next are read and embedded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

from secure_infer.ckks.link import Link
from secure_infer.errors import InvalidInput, ModelChanged, SecureInferError, SettingsError
from secure_infer.heads import ModelSpec
from secure_infer_client.client import Client
from secure_infer_client.cohort import answers, chunks, tables
from secure_infer_client.cohort.checkpoint import Checkpoint, changed_since, identity
from secure_infer_client.cohort.chunks import Chunk
from secure_infer_client.cohort.job import FORMATS, Job
from secure_infer_client.cohort.patience import TRANSIENT, Patience
from secure_infer_client.cohort.preparing import Features, Prepare, Ready, Submit, Texts, workers
from secure_infer_client.cohort.rows import Row
from secure_infer_client.cohort.stage import Stage
from secure_infer_client.cohort.summary import Progress, Summary
from secure_infer_client.prediction import Prediction, label_predictions, predictions
from secure_infer_client.record import Record
from secure_infer_client.text.embed import MiniLM
from secure_infer_client.text.prepare import TextSide

AHEAD = 2
"""Chunks that are read and embedded while another is scored."""


def score(
    client: Client,
    job: Job,
    *,
    scheme: str,
    link: Link,
    record: Record | None = None,
    reached: Callable[[Progress], None] = lambda _: None,
    tell: Callable[[SecureInferError, float], None] = lambda error, seconds: None,
) -> Summary:
    """Do the job, or what is left of it. record: the client's, which is told the rows' ids.

    reached: is called after each chunk; tell: before each pause, with its reason and seconds.
    Raises SettingsError where the job is of no use or is not the one that began; and what stops it, after `wait` seconds:
    whatever was committed counts then, and the same job goes on from there.
    """
    source, before = job.source(), job.input.stat()
    spec, label_only = client.spec, client.label_only
    prepare = _prepare(job, spec, label_only)
    names = answers.columns(spec, ids=job.columns.id is not None, label_only=label_only, logits=job.logits)
    together = job.chunk or chunks.rows_together(client.offered, link, texts=job.columns.text is not None)
    kind = FORMATS[job.out.suffix]
    header = answers.csv_header(names) if kind == "csv" else b""
    with Stage(job.out, job.facts(spec, scheme, identity(job.input)), header=header, restart=job.restart) as stage:
        run = _Run(client, job, stage, spec, names, record, Patience(job.wait, tell))
        begun = stage.checkpoint
        reached(Progress(begun.place.at, source.whole, source.unit, begun.scored, begun.rejected))
        if not begun.complete:
            with workers(prepare, job.workers if job.columns.text is not None else 0) as submit:
                rows = run.reading(chunks.chunks(source.read(begun.place), together))
                for chunk, ready in _ahead(rows, submit):
                    if changed_since(job.input, before):
                        raise InvalidInput(f"{job.input.name}: it was changed while it was scored")
                    run.one(chunk, ready)
                    done = stage.checkpoint
                    reached(Progress(done.place.at, source.whole, source.unit, done.scored, done.rejected))
            stage.commit(b"", b"", complete=True)
        done = stage.checkpoint
        stage.finish(partial(tables.write, names=names) if kind == "parquet" else None)
    return run.summary(begun, done, together)


def _prepare(job: Job, spec: ModelSpec, label_only: bool) -> Prepare:
    if job.columns.text is None:
        if job.columns.features and len(job.columns.features) != spec.contract.features:
            raise SettingsError(
                f"--features-columns: model {spec.name!r} takes {spec.contract.features} features, "
                f"got {len(job.columns.features)} columns"
            )
        return Features(spec)
    side = TextSide(None, remove=job.remove, long_text=job.long_text)
    if spec.embedder != MiniLM.identity:
        side.embedder_for(spec)  # raises, and says what the model takes
    # Threads of one embedder help less than further embedders do.
    return Texts(spec, job.remove, job.long_text, label_only, threads=1 if job.workers > 1 else None)


def _ahead(found: Iterable[Chunk], submit: Submit) -> Iterator[tuple[Chunk, Ready]]:
    waiting: deque[tuple[Chunk, Callable[[], Ready]]] = deque()
    for chunk in found:
        waiting.append((chunk, submit(chunk.rows)))
        if len(waiting) > AHEAD:
            first, ready = waiting.popleft()
            yield first, ready()
    for first, ready in waiting:
        yield first, ready()


class _Run:
    """What one run adds up."""

    def __init__(
        self,
        client: Client,
        job: Job,
        stage: Stage,
        spec: ModelSpec,
        names: list[str],
        record: Record | None,
        patience: Patience,
    ) -> None:
        self._client, self._job, self._stage, self._spec = client, job, stage, spec
        self._names, self._record, self._patience = names, record, patience
        self._label_only = client.label_only
        self._started = self._counted = perf_counter()
        self._plans: dict[str, None] = {}
        self._seconds = dict.fromkeys(("read", "prepare", "score", "write"), 0.0)

    def reading(self, found: Iterator[Chunk]) -> Iterator[Chunk]:
        """The same, timed."""
        while True:
            started = perf_counter()
            chunk = next(found, None)
            self._seconds["read"] += perf_counter() - started
            if chunk is None:
                return
            yield chunk

    def one(self, chunk: Chunk, ready: Ready) -> None:
        """Score a chunk and commit it."""
        self._seconds["prepare"] += ready.seconds
        started, waited = perf_counter(), self._patience.waited
        costs: dict[str, Any] = {}
        found: list[Prediction] = []
        if ready.prepared is not None:
            found = self._scored(ready)
            stats, so_far = self._client.last_call.stats, self._stage.checkpoint
            self._plans[stats.plan] = None
            costs = {
                name: getattr(so_far, name) + getattr(stats, name) for name in ("bytes_up", "bytes_down", "key_bytes")
            }
        self._seconds["score"] += perf_counter() - started - (self._patience.waited - waited)
        started = perf_counter()
        written = [
            answers.values(row, answer, self._spec.digest, self._names)
            for row, answer in zip(ready.rows, found, strict=True)
        ]
        as_csv = FORMATS[self._job.out.suffix] == "csv"
        rejected = sorted([*chunk.rejected, *ready.rejected], key=lambda one: one.number)
        now, before = perf_counter(), self._stage.checkpoint
        self._stage.commit(
            answers.as_csv(written, self._names) if as_csv else answers.as_json(written),
            "".join(one.to_json() + "\n" for one in rejected).encode(),
            place=chunk.place,
            scored=before.scored + len(ready.rows),
            rejected=before.rejected + len(rejected),
            seconds=before.seconds + now - self._counted,
            **costs,
        )
        self._counted = now
        self._seconds["write"] += perf_counter() - started

    def _scored(self, ready: Ready) -> list[Prediction]:
        if (prepared := ready.prepared) is None:
            return []
        try:
            with self._about(ready.rows, prepared.owner):
                ask = self._client.decide if self._label_only else self._client.predict
                found: Any = self._patience.call(lambda: ask(prepared.rows))
        except TRANSIENT as error:
            done = self._stage.checkpoint
            waited = f" (waited {self._patience.waited:.0f} s)" if self._patience.waited else ""
            kept = f"{done.scored} rows are scored and kept{waited}; run the same command again to go on"
            raise type(error)(f"{error.message}. {kept}", **error.details) from None
        call = self._client.last_call
        if call.model_digest != self._spec.digest:  # one that the client was told to accept
            raise ModelChanged(
                f"model {self._spec.name!r} changed while a cohort was scored: {self._spec.digest[:12]}… began it, "
                f"{call.model_digest[:12]}… is served now; --restart scores all of it with the new one"
            )
        if self._label_only:
            return label_predictions(call.stats.error_bound, found, prepared)
        return predictions(self._spec, call.stats.error_bound, found, prepared)

    def _about(self, rows: list[Row], owner: list[int]) -> Any:
        if self._record is None:
            return nullcontext()
        ids = [str(rows[text].id) for text in owner] if self._job.columns.id is not None else None
        return self._record.about(ids=ids, task=f"score, rows {rows[0].number} to {rows[-1].number}")

    def summary(self, begun: Checkpoint, done: Checkpoint, together: int) -> Summary:
        seconds = {f"{name}_seconds": value for name, value in self._seconds.items()}
        taken = perf_counter() - self._started
        total = replace(done, seconds=done.seconds + perf_counter() - self._counted)
        return Summary(
            model=self._spec.name,
            model_digest=self._spec.digest,
            rows=done.place.number,
            scored=done.scored,
            rejected=done.rejected,
            resumed=done.resumed,
            seconds=total.seconds,
            bytes_up=done.bytes_up,
            bytes_down=done.bytes_down,
            key_bytes=done.key_bytes,
            chunk_rows=together,
            plan=" + ".join(self._plans),
            run_rows=done.place.number - begun.place.number,
            run_seconds=taken,
            wait_seconds=self._patience.waited,
            retries=self._patience.retries,
            **seconds,
        )
