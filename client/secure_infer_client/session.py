"""One model at one server: what was pinned, which plans are used, and rows divided among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc
import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.allocation import Allocation, cheapest_for
from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.link import Link
from secure_infer.ckks.plan import Plan, Privacy
from secure_infer.errors import (
    BudgetExhausted,
    ModelChanged,
    PermissionDenied,
    PlanRefused,
    SecureInferError,
    SettingsError,
    UnsupportedHead,
)
from secure_infer.heads import ModelSpec
from secure_infer.v1 import inference_pb2, models_pb2, models_pb2_grpc
from secure_infer.wire import plans as wire_plans
from secure_infer_client import description
from secure_infer_client.batches import Progress, nothing
from secure_infer_client.choice import Batch, Offered, Query
from secure_infer_client.costs import Costs
from secure_infer_client.description import Description
from secure_infer_client.exchange import Exchange
from secure_infer_client.keyring import Entry
from secure_infer_client.uploads import delete_keys


class Session(Exchange):
    """Not thread-safe; `Client` serialises calls."""

    def __init__(
        self,
        channel: grpc.Channel,
        target: str,
        model: str,
        privacy: Privacy | None,
        link: Link,
        timeout: float,
        accept_model: Callable[[ModelSpec], bool] | None,
        entry: Entry,
    ) -> None:
        """entry: what is kept of earlier processes; the session's to close."""
        super().__init__(channel, target, model, timeout, entry)
        self._models = models_pb2_grpc.ModelServiceStub(channel)
        self._privacy, self._link, self._accept_model = privacy, link, accept_model
        self._spec: ModelSpec | None = None
        self._offered = Offered()

    label_only = False
    """Logits are what a server answers with."""

    # What is served.

    @property
    def pinned(self) -> ModelSpec | None:
        """The pinned model, where it was asked for already; asks nobody."""
        return self._spec

    @property
    def spec(self) -> ModelSpec:
        """The pinned model; asked for once, or never where the key ring has it."""
        if self._spec is None:
            return self._remembered() or self._refresh()
        return self._spec

    @property
    def plan(self) -> Plan:
        """The plan for single queries, or else for batches; raises UnsupportedHead when the server has none."""
        self.spec  # noqa: B018 (asks for the model)
        for option in (self._query, *self._batches):
            if option is not None:
                return option.plan
        raise UnsupportedHead(f"model {self._model!r} cannot be evaluated under encryption: {self._offered.reason}")

    @property
    def offered(self) -> Offered:
        """Every plan offered, where a client uses only the quickest."""
        self.spec  # noqa: B018 (asks for the model)
        return self._offered

    @property
    def batch_plans(self) -> list[BatchPlan]:
        """The batch plans that are used where they are quicker; the smallest batch first."""
        self.spec  # noqa: B018 (asks for the model)
        return sorted((batch.plan for batch in self._batches), key=lambda plan: plan.records)

    def _remembered(self) -> ModelSpec | None:
        """The model as an earlier process pinned it, with its plans where they were asked for at the same level."""
        state = self._entry.state
        if not state.pinned:
            return None
        try:
            found = self._described(models_pb2.GetModelResponse.FromString(state.pinned[0]))
        except (SecureInferError, ValueError):  # of another version of this software
            return None
        if state.privacy != (self._privacy or ""):
            self._spec = found.spec  # what is asked for now is held to it
            return None
        return self._use(found)

    def _refresh(self) -> ModelSpec:
        """Ask for the model and its plans; hold them to this client's own table and to what it pinned."""
        request = models_pb2.GetModelRequest(model=self._model, privacy=wire_plans.privacy_to_proto(self._privacy))
        response = self._call(lambda left: self._models.GetModel(request, timeout=left))
        found = self._described(response)
        spec = found.spec
        # All of it is pinned, not the digest alone: a client cannot recompute the digest of a model it does not have.
        if self._spec is not None and spec != self._spec and not (self._accept_model and self._accept_model(spec)):
            raise ModelChanged(
                f"model {self._model!r} changed on the server: pinned {self._spec.digest[:12]}…, now {spec.digest[:12]}… "
                "or another description of it. "
                "Check with its operator, then make a new client or pass accept_model"
            )
        self._use(found)
        self._secrets.keep(found.plans)
        with self._entry.changing() as state:
            state.pinned, state.privacy = [response.SerializeToString()], self._privacy or ""
        return spec

    def _described(self, response: models_pb2.GetModelResponse) -> Description:
        return description.read(response, self._model, self._privacy, self._link)

    def _use(self, found: Description) -> ModelSpec:
        self._offered, self._query, self._batches = found.offered, found.query, found.batches
        self._spec = found.spec
        return found.spec

    # Queries.

    def predict(self, x: NDArray[np.float64], costs: Costs, progress: Progress = nothing) -> NDArray[np.float64]:
        """Logits (B, K) of rows (B, d), held to the contract already."""
        self._require_going()
        pinned = self.spec
        try:
            return self._predict_once(x, costs, progress)
        except BudgetExhausted as refused:
            if not self._gave_up(refused.details.get("most", "")):
                raise
            return self._predict_once(x, costs, progress)
        except (ModelChanged, PlanRefused):
            # The server says that what was pinned is stale. Nothing of this part was evaluated, so nothing about the
            # key can leak. All of x starts anew: one call is never answered by two models.
            costs.plans.clear()
            current = self._refresh()
        if current.embedder != pinned.embedder:
            raise ModelChanged(f"model {self._model!r} now takes another embedder; make a new client")
        return self._predict_once(current.contract.check(x), costs, progress)

    def _gave_up(self, most: str) -> bool:
        """Leave out batch plans that count as more records than the server takes at once, if any, until the model changes."""
        before = len(self._batches)
        if most.isdecimal():
            self._batches = [batch for batch in self._batches if batch.plan.records <= int(most)]
        return len(self._batches) < before

    def decide(self, x: NDArray[np.float64], costs: Costs, progress: Progress = nothing) -> list[str]:
        """The answer of each row in words."""
        logits = self.predict(x, costs, progress)
        return self.spec.decide(logits)

    def fits(self, rows: Sequence[int]) -> int:
        """How many of those who wait with so many rows each, in order, go together: as many as fit one call of single queries,
        or all where a batch is then quicker than each by itself."""
        most = 0 if self._query is None else self._query.plan.queries_per_call
        together = max(1, int((np.cumsum(rows) <= most).sum()))
        if together == len(rows) or not self._batches:
            return together
        whole = self._allocated(sum(rows))
        batched = any(share.batch is not None for share in whole.shares)
        return len(rows) if batched and whole.seconds < sum(self._allocated(n).seconds for n in rows) else together

    def _allocated(self, records: int) -> Allocation[Query, Batch]:
        held = {plan for plan, _ in self._secrets.uploaded}
        return cheapest_for(records, self._query, self._batches, self._link, held)

    def _predict_once(self, x: NDArray[np.float64], costs: Costs, progress: Progress) -> NDArray[np.float64]:
        self.plan  # noqa: B018 (there is one)
        shares = self._allocated(len(x)).shares
        whole = sum(share.cost.total for share in shares) or 1.0
        found: list[NDArray[np.float64]] = []
        done, start = 0.0, 0
        for share in shares:
            plan = share.plan
            most = plan.records if isinstance(plan, BatchPlan) else plan.queries_per_call
            costs.plans.append(plan)
            for first in range(start, start + share.records, most):
                rows = x[first : min(first + most, start + share.records)]
                part = share.cost.total / whole * len(rows) / share.records
                before = done

                def reached(fraction: float, before: float = before, part: float = part) -> None:
                    progress(min(1.0, before + fraction * part))

                if isinstance(plan, BatchPlan):
                    found.append(self._exchange_batch(plan, rows, costs, reached))
                else:
                    found.append(self._exchange(rows, costs))
                done += part
                progress(min(1.0, done))
            start += share.records
        costs.spec = self.spec
        return np.concatenate(found)

    def rotate(self, *, renew: bool) -> int:
        """Destroy the keys; where they are renewed, upload new ones' material for the same plans; have the server delete what
        no key here belongs to any more. Returns how many keys it deleted; what fails here is tried at the next rotation."""
        used = {plan for plan, _ in self._secrets.uploaded}
        self._secrets.destroy()
        if renew:
            self.spec  # noqa: B018 (asks for the model)
            for option in (self._query, *self._batches):
                if option is not None and option.plan.digest in used:
                    self._upload(self._secrets.key_for(option.plan), option.plan, Costs())
        retired = list(self._entry.state.retired)
        if not retired:
            return 0
        try:
            deleted = self._call(lambda left: delete_keys(self._keys, retired, left))
        except PermissionDenied:  # of a server that tells nobody apart: it forgets keys by itself
            return 0
        with self._entry.changing() as state:
            state.retired = []
        return deleted

    def plaintext(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The server's plaintext baseline, for benchmarks on public data; off by default on servers."""
        request = inference_pb2.EvaluatePlaintextRequest(model=self._model, rows=x.astype("<f8").tobytes())
        response = self._call(lambda left: self._inference.EvaluatePlaintext(request, timeout=left))
        return np.frombuffer(response.logits, "<f8").reshape(len(x), self.spec.outputs)

    def close(self) -> None:
        """Destroy the keys in memory; what the key ring keeps stays there."""
        self._secrets.close()
        self._entry.close()


def parse_privacy(value: str | None) -> Privacy | None:
    """The level named by `value`; raises SettingsError for an unknown name."""
    try:
        return None if value is None else Privacy(value)
    except ValueError:
        raise SettingsError(f"privacy: expected one of {', '.join(Privacy)}, got {value!r}") from None
