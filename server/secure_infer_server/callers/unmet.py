"""What a policy says in vain: patterns that no method, model or secret fits, as after a misspelt word."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from secure_infer.v1 import admin_pb2, inference_pb2, keys_pb2, models_pb2, mpc_pb2
from secure_infer_server.callers.patterns import matches
from secure_infer_server.callers.policy import AUDITOR, OPERATOR, Policy, canonical
from secure_infer_server.open_inference.v2 import inference_pb2 as open_pb2

_FILES = (admin_pb2, inference_pb2, keys_pb2, models_pb2, mpc_pb2, open_pb2, reflection_pb2, health_pb2)
METHODS = frozenset(
    canonical(f"{service.full_name}/{method.name}")
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
"""Of servers, parties and dealers: a policy may be shared by several."""


def warnings(policy: Policy, models: Collection[str], enrolled: Collection[str] | None) -> Iterator[str]:
    """models: that are served; none where that is not known. enrolled: identities that have a secret for one-time codes; None:
    there is no second factor."""
    for number, rule in enumerate(policy.rules, 1):
        for pattern in rule.methods:
            if not _fits(pattern.removesuffix(":others"), METHODS):
                yield f"policy: [[allow]] number {number}: no method is called {pattern!r}"
        for pattern in rule.models or ():
            if models and not _fits(pattern, models):
                yield f"policy: [[allow]] number {number}: no served model is called {pattern!r}"
    if enrolled is not None:
        for role in (OPERATOR, AUDITOR):
            for pattern in policy.granted.get(role, ()):
                if not _fits(pattern, enrolled):
                    yield f"policy: {role} {pattern!r}: no such identity has a secret for one-time codes; each call is refused"


def _fits(pattern: str, names: Iterable[str]) -> bool:
    return any(matches(pattern, name) for name in names)
