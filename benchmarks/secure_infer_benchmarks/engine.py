"""The encrypted engine by itself: a server's whole handling of a query, for chosen plans, one thread, no network.

Every row goes through the server's own code, from request bytes to answer bytes, with blinds prepared ahead as the server
prepares them; the client's work is measured beside it. Errors are read over at least 10,000 logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from statistics import median
from time import perf_counter, sleep
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from secure_infer import models
from secure_infer.ckks import planner
from secure_infer.ckks.answers import read_answer
from secure_infer.ckks.calibration import unit_costs
from secure_infer.ckks.link import Link
from secure_infer.ckks.plan import DEFAULT_SMUDGING, Privacy
from secure_infer.ckks.planner import Candidate
from secure_infer.ckks.queries import pack_input
from secure_infer.errors import UnsupportedHead
from secure_infer.heads import Head, Linear, ModelSpec, Square
from secure_infer.heads.network import Network
from secure_infer_benchmarks.linear import inputs, spread, unit_norm_head
from secure_infer_benchmarks.peers import Workload
from secure_infer_client.keys import SecretKey
from secure_infer_server.blinds import BlindPool
from secure_infer_server.dataplane import Dataplane
from secure_infer_server.keys.vault import load_client_keys
from secure_infer_server.models.registry import Registry
from secure_infer_server.models.served import Offered, ServedModel
from secure_infer_server.settings import Policy

Floats = NDArray[np.float64]
LOGITS = 10_000
LINK = Link.parse("loopback")


@dataclass(frozen=True)
class Case:
    """A head and what is asked of its plan. most_bytes: of a query's ciphertexts; the quickest server within it is taken."""

    name: str
    head: Head
    smudging: int
    error: float | None = None
    most_bytes: int | None = None
    kinds: tuple[str, ...] = ("coefficient", "slots")


def square_head(features: int, units: int, outputs: int) -> Head:
    """A synthetic head with one hidden layer of squares and weights N(0, 1) / sqrt(fan-in)."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(units, features)) / np.sqrt(features)
    last = rng.normal(size=(outputs, units)) / np.sqrt(units)
    labels = [f"class {k}" for k in range(outputs)]
    return Head([Linear(first), Square(), Linear(last)], labels=labels, input_bound=1.0, input_norm=1.0)


def cases() -> list[Case]:
    """The published workloads, each within its bytes and smudging."""
    linear, square = unit_norm_head(384, 10), square_head(384, 64, 10)
    flagship = Head.load(models.path() / "icd10-chapter.head")
    return [
        Case("384 -> 10", linear, 18),
        Case("384 -> 10, error 1e-4", linear, 18, 1e-4),
        Case("384 -> 64 -> 10 square, few bytes", square, 20, 1e-3, 150_000),
        Case("384 -> 64 -> 10 square", square, 20, 1e-3, 570_000),
        Case("ICD-10 384 -> 256 -> 21, few bytes", flagship, 16, 1.5e-3, 150_000),
        Case("ICD-10 384 -> 256 -> 21", flagship, 18, 1.5e-3, 570_000),
    ]


def choose(case: Case) -> Candidate:
    """The candidate with the quickest server within the case's bytes."""
    network = Network.of(case.head.layers)
    wanted = planner.demand(network, case.head.contract, error=case.error, smudging=case.smudging)
    tried = planner.explore(network, case.head.contract, wanted, unit_costs(), LINK)
    able = [
        c
        for c in tried.candidates
        if c.kind in case.kinds and (case.most_bytes is None or c.plan.query_bytes <= case.most_bytes)
    ]
    if not able:
        raise planner.refusal(tried.rejected, network, wanted)
    return min(able, key=lambda c: c.cost.server)


class Bench:
    """A server with one model and one plan, and a client's key for it, in this process; blinds come from their own."""

    def __init__(self, head: Head, candidate: Candidate) -> None:
        self.plan = candidate.plan
        digest = bytes.fromhex(self.plan.digest)
        self._offered = Offered(self.plan, candidate.cost.server, candidate.compile)
        policy = Policy(privacy=self.plan.privacy)
        served = ServedModel(ModelSpec.of("model", head), head, policy, {digest: self._offered}, "")
        self._blinds = BlindPool(1 << 28, per_key=max(8, 2 * self.plan.products))
        self._dataplane = Dataplane(Registry({"model": served}, {}), self._blinds)
        self._key = SecretKey(self.plan.parameters)
        upload = self._key.upload(self.plan)
        keys, _ = load_client_keys(self.plan, upload.data)
        self._held = upload.digest, keys
        if keys.public is not None:
            self._blinds.warm(self.plan, upload.digest, keys.public)
        self._rows = self._key.rows(self.plan)

    def __enter__(self) -> Bench:
        self._blinds.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._blinds.close()
        self._key.destroy()

    def query(self, x: Floats) -> tuple[Floats, dict[str, float]]:
        """Logits (K,) of a row (d,), and milliseconds by stage; waits first until its blinds are ready."""
        while self._blinds.level(self.plan, self._held[0]) < self.plan.products:
            self._blinds.nudge(self.plan, self._held[0])
            sleep(0.0005)
        self._key.prepare(self.plan.ciphertexts)
        started = perf_counter()
        query = [self._key.encrypt(p) for p in pack_input(self.plan, x)]
        encrypted = perf_counter()
        evaluation = self._dataplane.begin(self._offered, self._held)
        evaluation.add(query)
        times = evaluation.done()
        answered = perf_counter()
        logits = read_answer(self.plan, self._rows, evaluation.answers[0])
        return logits, {
            "server": 1e3 * times.total,
            "load": 1e3 * times.load,
            "evaluate_and_blind": 1e3 * times.evaluate,
            "encrypt": 1e3 * (encrypted - started),
            "read": 1e3 * (perf_counter() - answered),
        }


def run(head: Head, candidate: Candidate, x: Floats, name: str) -> tuple[Floats, list[dict[str, float]]]:
    """Logits (B, K) of rows (B, d), one query each, and their milliseconds by stage."""
    logits, stages = [], []
    with Bench(head, candidate) as bench:
        bench.query(x[0])  # the first one builds what later ones find ready
        for row in tqdm(x, desc=name, leave=False, disable=None):
            found, times = bench.query(row)
            logits.append(found)
            stages.append(times)
    return np.stack(logits), stages


def measure(case: Case, logits: int) -> dict[str, Any]:
    """A case's row: what its plan is, milliseconds by stage, bytes, and the error over that many logits."""
    candidate = choose(case)
    plan = candidate.plan
    queries = max(30, -(-logits // plan.outputs))
    x = inputs(case.head.features, queries) * min(1.0, case.head.contract.largest_norm)
    found, stages = run(case.head, candidate, x, case.name)
    read = np.abs(found - case.head.evaluate(x)).ravel()
    return {
        "kind": candidate.kind,
        "plan": str(plan.parameters),
        "ciphertexts": plan.ciphertexts,
        "products": plan.products,
        "privacy": str(plan.privacy),
        "security_bits": plan.security_bits,
        "smudging_bits": plan.smudging_bits,
        "error_bound": plan.error_bound,
        "answer_range": plan.answer_range,
        "max_logit_error": float(read.max()),
        "p999_logit_error": float(np.quantile(read, 0.999)),
        "logits": len(read),
        "bytes_up": plan.query_bytes,
        "bytes_down": plan.answer_bytes,
        "key_bytes": plan.key_bytes,
        "predicted_server_ms": 1e3 * candidate.cost.server,
        **{f"{stage}_ms": spread([times[stage] for times in stages]) for stage in stages[0]},
    }


def beside_peers(workload: Workload) -> list[dict[str, Any]]:
    """This project's row for a workload of the peers' benchmark."""
    case = Case("secure-infer", workload.head, DEFAULT_SMUDGING, None, 570_000)
    candidate = choose(case)
    plan = candidate.plan
    x = np.resize(workload.rows, (30, workload.head.features))
    exact = workload.head.evaluate(x)
    found, stages = run(workload.head, candidate, x, case.name)

    def times(*names: str) -> dict[str, float]:
        totals = [sum(stage[name] for name in names) for stage in stages]
        return {"median": median(totals), "lowest": min(totals), "highest": max(totals)}

    return [
        {
            "peer": case.name,
            "variant": f"{candidate.kind} plan, {plan.smudging_bits} smudging bits",
            "version": version("secure-infer"),
            "parameters": str(plan.parameters),
            "security_bits": plan.security_bits,
            "model_hidden": plan.privacy is Privacy.BOTH_PRIVATE,
            "queries": len(x),
            "server_ms": times("server"),
            "client_ms": times("encrypt", "read"),
            "bytes_up": plan.query_bytes,
            "bytes_down": plan.answer_bytes,
            "key_bytes": plan.key_bytes,
            "max_logit_error": float(np.abs(found - exact).max()),
            "argmax_agreement": float((found.argmax(axis=1) == exact.argmax(axis=1)).mean()),
        }
    ]


def report(quick: bool) -> dict[str, Any]:
    """The published cases, what smudging costs, and how the server's time grows."""
    logits = LOGITS // 20 if quick else LOGITS
    suites = {"cases": (cases(), logits), "smudging": (smudging_cases(), 300), "scaling": (scaling_cases(quick), 300)}
    found: dict[str, Any] = {}
    with tqdm(total=sum(len(some) for some, _ in suites.values()), desc="engine", leave=False, disable=None) as bar:
        for title, (some, number) in suites.items():
            found[title] = {}
            for case in some:
                bar.set_postfix_str(case.name)
                try:
                    found[title][case.name] = measure(case, number)
                except UnsupportedHead as problem:
                    found[title][case.name] = {"reason": problem.message}
                bar.update()
    return found


def smudging_cases() -> list[Case]:
    """The published heads at several levels of smudging."""
    heads = {
        "384 -> 10": unit_norm_head(384, 10),
        "384 -> 64 -> 10 square": square_head(384, 64, 10),
        "ICD-10 384 -> 256 -> 21": Head.load(models.path() / "icd10-chapter.head"),
    }
    return [
        Case(f"{name}, s = {bits}", head, bits, 1.5e-3 if name.startswith("ICD") else 1e-3, 1_600_000)
        for name, head in heads.items()
        for bits in (7, 20, 30, 40)
    ]


def scaling_cases(quick: bool) -> list[Case]:
    """Heads that differ from one in the middle by one dimension."""
    shapes = [(384, 64, 10), (96, 64, 10), (1536, 64, 10), (384, 16, 10), (384, 256, 10), (384, 64, 2), (384, 64, 40)]
    return [
        Case(f"{d} -> {h} -> {k}", square_head(d, h, k), 18, 1e-3, kinds=("slots",))
        for d, h, k in (shapes[:3] if quick else shapes)
    ]


def table(found: dict[str, Any]) -> str:
    """The report as text."""
    lines = []
    for title, rows in found.items():
        lines.append(
            f"{title:<38} {'plan':<24} {'server ms':>9} {'predicted':>9} {'evaluate':>8} {'client ms':>9} "
            f"{'up':>9} {'down':>7} {'keys':>9} {'s':>3} {'bound':>7} {'max err':>7}"
        )
        for name, r in rows.items():
            if "reason" in r:
                lines.append(f"{name:<38} does not fit: {r['reason'][:120]}")
                continue
            client = r["encrypt_ms"]["median"] + r["read_ms"]["median"]
            lines.append(
                f"{name:<38} {r['plan']:<24} {r['server_ms']['median']:>9.2f} {r['predicted_server_ms']:>9.2f} "
                f"{r['evaluate_and_blind_ms']['median']:>8.2f} {client:>9.2f} {r['bytes_up']:>9,} {r['bytes_down']:>7,} "
                f"{r['key_bytes']:>9,} {r['smudging_bits']:>3} {r['error_bound']:>7.1e} {r['max_logit_error']:>7.1e}"
            )
        lines.append("")
    return "\n".join(lines)
