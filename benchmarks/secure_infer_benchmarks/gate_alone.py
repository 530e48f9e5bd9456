"""The gate by itself, in one process: processor time of the thread that calls it, and of the process with the log's thread."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from secure_infer_server.audit.settings import AuditSettings
from secure_infer_server.budgets import Allowance, BudgetSettings
from secure_infer_server.callers.permissions import PermissionSettings
from secure_infer_server.gate import Ask, Gate, OpenGate
from secure_infer_server.guarded import CallerSettings, GuardedGate, GuardSettings

METHOD = "/secure_infer.v1.InferenceService/Infer"
MODEL, PLAN, KEY = (secrets.token_bytes(32) for _ in range(3))
CALLS = 200


def measure(policy: str, bytes_up: int, bytes_down: int, slices: int) -> dict[str, dict[str, float]]:
    """Microseconds a call by gate: the best slice and the median one, of the calling thread; the median of the process."""
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        (folder / "policy.toml").write_text(policy)
        callers = CallerSettings(permissions=PermissionSettings(folder / "policy.toml"))
        kinds: Mapping[str, GuardSettings | None] = {
            "open": None,
            "callers": GuardSettings(callers),
            "callers, budgets": GuardSettings(callers, _budgets(folder / "one")),
            "callers, budgets, audit": GuardSettings(callers, _budgets(folder / "two"), AuditSettings(folder / "log")),
        }
        for name, settings in kinds.items():
            gate: Gate = OpenGate() if settings is None else GuardedGate(settings)
            gate.serve({"head": [MODEL]})
            found[name] = asyncio.run(_sliced(gate, secrets.token_bytes(bytes_up), bytes(bytes_down), slices))
            if isinstance(gate, GuardedGate):
                gate.close()
    return found


def _budgets(folder: Path) -> BudgetSettings:
    folder.mkdir()
    return BudgetSettings(folder / "budgets.sqlite", Allowance(total=10**9))


async def _sliced(gate: Gate, ciphertext: bytes, answer: bytes, slices: int) -> dict[str, float]:
    times, whole = [], []
    for _ in range(slices):
        ids = [secrets.token_bytes(16) for _ in range(CALLS)]
        thread, process = time.thread_time(), time.process_time()
        for request_id in ids:
            await _call(gate, request_id, ciphertext, answer)
        times.append(1e6 * (time.thread_time() - thread) / CALLS)
        await asyncio.sleep(0.06)  # the log's thread writes what waits
        whole.append(1e6 * (time.process_time() - process) / CALLS)
    return {"best_us": min(times), "us": median(times), "process_us": median(whole)}


async def _call(gate: Gate, request_id: bytes, ciphertext: bytes, answer: bytes) -> None:
    context = _context()
    gate.authenticate(context, METHOD)
    gate.authenticate(context, METHOD)
    ask = Ask(MODEL, PLAN, KEY, 1, request_id, lambda: [[ciphertext]])
    with await gate.aadmit(context, METHOD, "head", ask) as admission:
        if admission.stored is None:
            admission.finish("ok", answer)


def _context() -> Any:
    """What is read of gRPC's; its own takes some microseconds more."""
    kind = {"transport_security_type": [b"insecure"]}
    return SimpleNamespace(auth_context=lambda: kind, invocation_metadata=tuple, peer=lambda: "ipv4:127.0.0.1:40000")
