"""The workload under CKKS: plans within few bytes and quick ones, single images taking turns, and a batch.

Times are the server's own handling, from a query's bytes to its answer's, and the client's work beside it; no network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from time import perf_counter

import numpy as np
from tqdm import tqdm

from secure_infer.ckks import keymaterial, work
from secure_infer.ckks import planner as planners
from secure_infer.ckks.batch.blinding import BatchBlinder
from secure_infer.ckks.batch.packing import pack_batch, read_batch
from secure_infer.ckks.batch.query import read_ciphertext
from secure_infer.ckks.calibration import unit_costs
from secure_infer.ckks.link import Link, estimate
from secure_infer.ckks.plan import DEFAULT_SMUDGING, Plan, Privacy
from secure_infer.ckks.planner import Candidate
from secure_infer.ckks.slots import SlotEvaluator
from secure_infer.ckks.slots.layouts import Layout, promising
from secure_infer.ckks.slots.planner import DEGREES, Demand, Planner
from secure_infer.errors import PlanRefused, UnsupportedHead
from secure_infer.heads import Head
from secure_infer.heads.network import Network
from secure_infer_benchmarks.engine import Bench
from secure_infer_benchmarks.figures import Row, figure
from secure_infer_benchmarks.mnist import published
from secure_infer_benchmarks.mnist.published import SHAPE, WORKLOAD, beside
from secure_infer_benchmarks.mnist.samples import Samples
from secure_infer_client.keys import SecretKey

LINK = Link.parse("loopback")


@dataclass(frozen=True)
class Case:
    """few_bytes: the fewest bytes that a query can have, else the quickest server. error: bound on a logit's, of which R is
    32 and margins between digits are typically 5. images: of a full run."""

    privacy: Privacy
    few_bytes: bool
    error: float
    images: int

    @property
    def name(self) -> str:
        return f"ours, 784-128-64-10/{self.privacy}" + ("" if self.few_bytes else ", quickest")


CASES = (
    Case(Privacy.BOTH_PRIVATE, True, 0.3, 100),
    Case(Privacy.INPUT_PRIVATE, True, 0.4, 100),
    Case(Privacy.BOTH_PRIVATE, False, 0.3, 20),
    Case(Privacy.INPUT_PRIVATE, False, 0.4, 20),
)
BATCH = "ours, 784-128-64-10/both-private, batch"
BATCH_ERROR = 0.3


def choose(head: Head, case: Case) -> Candidate:
    """The plan that the case asks for, in the smallest ring that has one; raises UnsupportedHead when none has."""
    network = Network.of(head.layers)
    planner = Planner(network, head.contract)
    wanted = Demand(case.privacy, case.error, DEFAULT_SMUDGING)
    costs, reason = unit_costs(), "no ring holds its features"
    for degree in DEGREES:
        layouts = promising(planner.network, degree)
        fewest = min((layout.inputs for layout in layouts), default=0)
        drafts: list[tuple[tuple[float, float], int, Layout]] = []
        for layout in layouts:
            if case.few_bytes and layout.inputs > fewest:
                continue
            try:
                draft = planner.draft(layout, wanted)
            except (UnsupportedHead, PlanRefused) as problem:
                reason = problem.message
                continue
            size, seconds = draft.plan.query_bytes, work.of_slots_server(draft).total(costs)
            drafts.append(((size, seconds) if case.few_bytes else (seconds, size), len(drafts), layout))
        for _, _, layout in sorted(drafts, key=lambda drafted: drafted[:2]):
            try:
                program = planner.program(layout, wanted)
            except (UnsupportedHead, PlanRefused) as problem:  # what rounding costs was estimated too low
                reason = problem.message
                continue
            plan, server = program.plan, work.of_slots_server(program)
            cost = estimate(server, work.of_client(plan), plan.query_bytes, plan.answer_bytes, LINK, costs)
            return Candidate("slots", plan, cost, partial(SlotEvaluator, planner.network, program))
    raise UnsupportedHead(f"{case.name}: {reason}")


class _Asked:
    """A case with its server and key, and what came of its queries."""

    def __init__(self, case: Case, candidate: Candidate, stack: ExitStack, head: Head) -> None:
        self.case, self.candidate = case, candidate
        self._bench = stack.enter_context(Bench(head, candidate))
        self._logits: list[np.ndarray] = []
        self._server: list[float] = []
        self._client: list[float] = []

    def warm_up(self, samples: Samples) -> None:
        """The first query builds what later ones find ready."""
        self._bench.query(samples.rows[0])

    def ask(self, samples: Samples) -> None:
        """The next image."""
        logits, times = self._bench.query(samples.rows[len(self._logits)])
        self._logits.append(logits)
        self._server.append(times["server"])
        self._client.append(times["encrypt"] + times["read"])

    def row(self, samples: Samples) -> Row:
        plan = self.candidate.plan
        figures = {"server_ms": figure(self._server), "client_ms": figure(self._client)}
        counts = _counts(plan) | samples.compared(np.stack(self._logits))
        counts["predicted_server_ms"] = 1e3 * self.candidate.cost.server
        found = _row(
            self.case.name,
            plan,
            f"{self.candidate.kind} plan, {plan.ciphertexts} ciphertext{'s' * (plan.ciphertexts > 1)} up",
        )
        return found | {
            "figures": figures,
            "counts": counts,
            "ratios": beside(counts, figures["server_ms"]["median"]),
            "note": _said(plan),
        }


def measure(head: Head, samples: Samples, cases: tuple[Case, ...], images: int | None) -> Iterator[Row]:
    """A row a case. images: of each; None: as many as the case says."""
    with ExitStack() as stack:
        asked, refused = [], []
        for case in tqdm(cases, desc="mnist: plans and keys", leave=False, disable=None):
            try:
                asked.append(_Asked(case, choose(head, case), stack, head))
                asked[-1].warm_up(samples)
            except UnsupportedHead as problem:
                refused.append({"id": case.name, "workload": WORKLOAD, "shape": SHAPE, "reason": problem.message})
        wanted = [min(len(samples.rows), images or one.case.images) for one in asked]
        for turn in tqdm(range(max(wanted, default=0)), desc="mnist: images", leave=False, disable=None):
            for one, most in zip(asked, wanted, strict=True):
                if turn < most:
                    one.ask(samples)
        yield from (one.row(samples) for one in asked)
        yield from refused


def batch(head: Head, samples: Samples, repeats: int) -> Row:
    """As many images as the smallest batch holds at once, and what one of them takes."""
    wanted = Demand(Privacy.BOTH_PRIVATE, BATCH_ERROR, DEFAULT_SMUDGING)
    found = planners.batch_candidates(Network.of(head.layers), head.contract, wanted, unit_costs(), LINK)
    if not found.candidates:
        return {"id": BATCH, "workload": WORKLOAD, "shape": SHAPE, "reason": found.rejected[-1].reason}
    chosen = min(found.candidates, key=lambda candidate: candidate.plan.records)
    plan, program = chosen.plan, chosen.program
    key = SecretKey(plan.parameters)
    try:
        material = keymaterial.parse(plan, key.upload(plan).data)
        switching = keymaterial.load(plan, material).parts
        rows = samples.rows[: plan.records]
        server, client = [], []
        for _ in tqdm(range(repeats), desc="mnist: batches", leave=False, disable=None):
            # Made ahead, as a server makes it.
            blind = None if material.public is None else BatchBlinder(plan, material.public).residues
            started = perf_counter()
            query = [key.encrypt_batch(polynomial) for polynomial in pack_batch(plan, rows)]
            encrypted = perf_counter()
            evaluation = program.evaluation()
            for data in query:
                evaluation.add(read_ciphertext(plan, data))
            answers = [answer for answer in evaluation.answers(blind, switching) if answer is not None]
            answered = perf_counter()
            logits = read_batch(plan, key.polynomial(), answers, len(rows))
            server.append(1e3 * (answered - encrypted) / len(rows))
            client.append(1e3 * (encrypted - started + perf_counter() - answered) / len(rows))
    finally:
        key.destroy()
    counts = _counts(plan) | samples.compared(logits) | {"records": len(rows)}
    shares = {f"{name}_a_record": counts.pop(name) / len(rows) for name in ("bytes_up", "bytes_down")}
    said = f"a whole batch is {plan.query_bytes:,} bytes; the model is hidden from key holders who made their keys honestly"
    return _row(BATCH, plan, f"batch plan, {plan.records} images") | {
        "figures": {"server_ms_a_record": figure(server), "client_ms_a_record": figure(client)},
        "counts": counts | shares,
        "ratios": beside({**counts, "bytes_up": shares["bytes_up_a_record"]}, float(np.median(server))),
        "note": said,
    }


def _row(name: str, plan: Plan, variant: str) -> Row:
    private = plan.privacy is Privacy.BOTH_PRIVATE
    return {
        "id": name,
        "workload": WORKLOAD,
        "shape": SHAPE,
        "who": "secure-infer",
        "ours": True,
        "published": False,
        "variant": f"{variant}, squares for ReLU",
        "version": version("secure-infer"),
        "parameters": str(plan.parameters),
        "security": {
            "input_private": True,
            "model_private": private,
            "bits": plan.security_bits,
            "smudging_bits": plan.smudging_bits if private else None,
            "rests_on": "ring-LWE",
        },
    }


def _counts(plan: Plan) -> dict[str, float]:
    return {
        "bytes_up": plan.query_bytes,
        "bytes_down": plan.answer_bytes,
        "key_bytes": plan.key_bytes,
        "error_bound": plan.error_bound,
    }


def _said(plan: Plan) -> str:
    """What a reader has to know before comparing bytes."""
    least = published.rows()[0]["counts"]["bytes_up"]
    if plan.query_bytes <= least:
        return "fewer bytes up than either published build"
    return (
        f"{plan.query_bytes / least:.1f} times the bytes up of the published build of 2025, whose parameters are far below "
        "128-bit security; no plan has fewer with this privacy, smudging and error"
        if plan.ciphertexts == 1
        else f"more bytes up, {plan.ciphertexts} ciphertexts, for a quicker server"
    )
