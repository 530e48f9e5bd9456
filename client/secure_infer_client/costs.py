"""What one call of a client adds up: seconds by stage, bytes, plans."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter

from secure_infer.ckks.plan import Plan
from secure_infer.v1 import inference_pb2
from secure_infer_client.batches import BatchAnswers


@dataclass
class Costs:
    """Running totals of a call; times in seconds."""

    encrypt: float = 0.0
    call: float = 0.0
    server: float = 0.0
    load: float = 0.0
    evaluate: float = 0.0
    decrypt: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    key_bytes: int = 0
    rounds: int = 0
    blinds_ready: int = 0
    blinds_inline: int = 0
    plans: list[Plan] = field(default_factory=list)
    started: float = field(default_factory=perf_counter)

    def add_batch(self, found: BatchAnswers, seconds: float) -> None:
        """Count a batch whose exchange took so long. What this side encrypted meanwhile is not counted twice."""
        self.encrypt += found.encrypt
        self.call += max(0.0, seconds - found.encrypt)
        self.rounds += 1
        self.bytes_up += found.bytes_up
        self.bytes_down += found.bytes_down
        self.add_times(found.times)

    def add_times(self, times: inference_pb2.ServerTimes) -> None:
        self.server += times.total_us / 1e6
        self.load += times.load_us / 1e6
        self.evaluate += times.evaluate_us / 1e6
        self.blinds_ready += times.blinds_ready
        self.blinds_inline += times.blinds_inline
