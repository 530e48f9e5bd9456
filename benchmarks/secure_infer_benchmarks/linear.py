"""The linear head through the coefficient plan: single queries warm and cold, and sustained throughput."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, sleep
from typing import Any

import numpy as np
from tqdm import tqdm

from secure_infer.heads import Head, Linear
from secure_infer_client import Client
from secure_infer_client.local_server import LocalServer
from secure_infer_client.prediction import CallStats

STAGES = ("encrypt", "network", "server", "decrypt", "total")


@dataclass(frozen=True)
class Settings:
    """repeats: single queries of each kind. seconds: of sustained load. pause: between queries, so that blinds refill."""

    repeats: int = 300
    seconds: float = 10.0
    pause: float = 0.004


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = quantiles(values, n=4)
    return {"median": middle, "quartile_1": low, "quartile_3": high}


def unit_norm_head(features: int, outputs: int) -> Head:
    """A synthetic head with unit-norm weight rows: the workload of published comparisons."""
    weight = np.random.default_rng(0).normal(size=(outputs, features))
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)
    return Head([Linear(weight)], labels=[f"class {k}" for k in range(outputs)], input_bound=1.0, input_norm=1.0)


def inputs(features: int, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rows (count, features) of norm one."""
    x = np.random.default_rng(1).normal(size=(count, features))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def measure(head: Head, name: str, settings: Settings) -> dict[str, Any]:
    """All figures for one head."""
    with tempfile.TemporaryDirectory() as directory:
        head.save(Path(directory) / f"{name}.head")
        with LocalServer(Path(directory), "--plaintext-baseline") as server:
            warm = _single(server.address, head, name, settings)
            sustained = _sustained(server.address, head, name, settings)
        with LocalServer(Path(directory), "--blinds-per-key", "0") as server:
            cold = _stages(_queries(server.address, head, name, settings.repeats // 3, 0.0)[0])
    return warm | {"cold_pool": cold, "sustained": sustained}


def _single(address: str, head: Head, name: str, settings: Settings) -> dict[str, Any]:
    """Encrypted and plaintext calls in turn on one connection, so that drift hits both alike."""
    stats, plain, encrypted, errors = _queries(address, head, name, settings.repeats, settings.pause, baseline=True)
    with Client(address, model=name) as client:
        plan = client.plan
        client.predict(inputs(head.features, 1))
        first = client.last_call.stats
    return {
        "head": f"{head.features} -> {head.outputs}",
        "plan": f"{plan.kind} {plan.parameters}",
        "privacy": str(plan.privacy),
        "security_bits": plan.security_bits,
        "smudging_bits": plan.smudging_bits,
        "error_bound": plan.error_bound,
        "max_logit_error": max(errors),
        "ratio_to_plaintext_call": median(encrypted) / median(plain),
        "plaintext_call_ms": spread(plain),
        "predict_ms": spread(encrypted),
        "warm_pool": _stages(stats),
        "first_call_ms": first.total_ms,
        "bytes_up": stats[-1].bytes_up,
        "bytes_down": stats[-1].bytes_down,
        "key_bytes": first.key_bytes,
    }


def _queries(
    address: str, head: Head, name: str, count: int, pause: float, *, baseline: bool = False
) -> tuple[list[CallStats], list[float], list[float], list[float]]:
    x = inputs(head.features, count)
    stats: list[CallStats] = []
    plain: list[float] = []
    encrypted: list[float] = []
    errors: list[float] = []

    def timed(call: Callable[[], Any], into: list[float]) -> Any:
        started = perf_counter()
        result = call()
        into.append(1e3 * (perf_counter() - started))
        return result

    with Client(address, model=name) as client:
        for row in (x[:1], x[1:2]):
            client.predict(row)
        sleep(0.5)
        for row in tqdm(x[:, None, :], desc=f"{name}: queries", leave=False, disable=None):
            logits = timed(lambda row=row: client.predict(row), encrypted)  # type: ignore[misc]
            stats.append(client.last_call.stats)
            errors.append(float(np.abs(logits - head.evaluate(row)).max()))
            if baseline:
                sleep(pause)  # so that what a query leaves to be done does not slow the plaintext call
                timed(lambda row=row: client.evaluate_plaintext(row), plain)  # type: ignore[misc]
            sleep(pause)
    return stats, plain, encrypted, errors


def _stages(stats: list[CallStats]) -> dict[str, Any]:
    times = {f"{stage}_ms": median(getattr(s, f"{stage}_ms") for s in stats) for stage in STAGES}
    return times | {
        "server_load_ms": median(s.server_load_ms for s in stats),
        "server_evaluate_and_blind_ms": median(s.server_evaluate_ms for s in stats),
        "blinds_ready": sum(s.blinds_ready for s in stats),
        "blinds_made_during_requests": sum(s.blinds_inline for s in stats),
    }


def _sustained(address: str, head: Head, name: str, settings: Settings) -> dict[str, Any]:
    """One client without pause, refilling included: single queries, then as many a call as the plan carries."""
    found: dict[str, Any] = {}
    with Client(address, model=name) as client:
        for label, batch in (("single", 1), ("full_calls", client.plan.queries_per_call)):
            x = inputs(head.features, batch)
            client.predict(x)
            done, inline, started = 0, 0, perf_counter()
            while perf_counter() - started < settings.seconds / 2:
                client.predict(x)
                done += batch
                inline += client.last_call.stats.blinds_inline
            rate = done / (perf_counter() - started)
            found[label] = {
                "records_a_second": rate,
                "records_a_call": batch,
                "share_of_blinds_made_during_requests": inline / (done * client.plan.products),
            }
    return found
