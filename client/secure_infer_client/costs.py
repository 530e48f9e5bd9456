"""What one call of a client adds up: seconds by stage, bytes, plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

from secure_infer.ckks.plan import Plan
from secure_infer.heads import ModelSpec
from secure_infer.mpc.disclosure import fails_unseen
from secure_infer.mpc.program import SECURITY_BITS, Program
from secure_infer.v1 import inference_pb2, mpc_pb2
from secure_infer_client.batches import BatchAnswers
from secure_infer_client.prediction import PLANS, CallStats


@dataclass
class Costs:
    """Running totals of a call; times in seconds."""

    encrypt: float = 0.0
    call: float = 0.0
    server: float = 0.0
    load: float = 0.0
    evaluate: float = 0.0
    decrypt: float = 0.0
    wait: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    key_bytes: int = 0
    rounds: int = 0
    blinds_ready: int = 0
    blinds_inline: int = 0
    link_rounds: int = 0
    link_bytes: int = 0
    correlation_bytes: int = 0
    retries: int = 0
    plans: list[Plan | Program] = field(default_factory=list)
    spec: ModelSpec = field(init=False)
    """What answered: another than was pinned before, where a model that changed was accepted meanwhile."""
    started: float = field(default_factory=perf_counter)

    def again(self) -> None:
        """A call is made once more."""
        self.retries += 1

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

    def add_shares(
        self,
        requests: Sequence[mpc_pb2.InferShareRequest],
        responses: Sequence[mpc_pb2.InferShareResponse],
        seconds: float,
    ) -> None:
        """Count one request to both parties; they work at the same time, so the slower one's times count."""
        told = [response.costs for response in responses]
        self.call += seconds
        self.rounds += 1
        self.bytes_up += sum(request.ByteSize() for request in requests)
        self.bytes_down += sum(response.ByteSize() for response in responses)
        self.server += max(t.total_us for t in told) / 1e6
        self.wait += max(t.wait_us for t in told) / 1e6
        self.evaluate += max(max(0, t.total_us - t.wait_us - t.link_us) for t in told) / 1e6
        self.link_rounds += max(t.rounds for t in told)
        self.link_bytes += max(t.link_bytes for t in told)
        self.correlation_bytes += sum(t.correlation_bytes for t in told)

    def stats(self, records: int, embed: float = 0.0, callers: int = 1) -> CallStats:
        """The finished call; embed: seconds that came before it."""
        total = perf_counter() - self.started + embed
        return CallStats(
            embed_ms=1e3 * embed,
            encrypt_ms=1e3 * self.encrypt,
            network_ms=1e3 * max(0.0, self.call - self.server),
            server_ms=1e3 * self.server,
            decrypt_ms=1e3 * self.decrypt,
            total_ms=1e3 * total,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            key_bytes=self.key_bytes,
            plan=PLANS.join(dict.fromkeys(map(in_words, self.plans))),
            security_bits=min(SECURITY_BITS if isinstance(p, Program) else p.security_bits for p in self.plans),
            smudging_bits=min(0 if isinstance(p, Program) else p.smudging_bits for p in self.plans),
            error_bound=max(plan.error_bound for plan in self.plans),
            rounds=self.rounds,
            records=records,
            blinds_ready=self.blinds_ready,
            blinds_inline=self.blinds_inline,
            server_load_ms=1e3 * self.load,
            server_evaluate_ms=1e3 * self.evaluate,
            link_rounds=self.link_rounds,
            link_bytes=self.link_bytes,
            correlation_bytes=self.correlation_bytes,
            retries=self.retries,
            wait_ms=1e3 * self.wait,
            callers=callers,
        )


def accuracy(plan: Plan | Program, error_bound: float) -> str:
    """What answers may differ by: logits by the bound; labels alone, whose logits nobody sees, are right or wrong."""
    if not isinstance(plan, Program):
        return f"logit error at most {error_bound:g}"
    unseen = f"unnoticed with probability {plan.failure_probability:.0e}"
    if plan.label_only:
        return f"a label is wrong {unseen}, besides close calls (logits within {2 * error_bound:g})"
    return f"logit error at most {error_bound:g}" + (f", more {unseen}" if fails_unseen(plan) else "")


def in_words(plan: Plan | Program) -> str:
    """ "coefficient N=4096 (109 bits), both-private", or "mpc, shared weights, 20 fraction bits"."""
    if isinstance(plan, Program):
        answers = ", labels alone" if plan.label_only else ""
        return f"mpc, {plan.weights} weights, {plan.fraction} fraction bits{answers}"
    return f"{plan.kind} {plan.parameters}, {plan.privacy}"
