"""The models that are served: every `*.head` of a directory, each compiled for the plans its policy allows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from secure_infer.ckks import planner
from secure_infer.ckks.coefficient import LinearEvaluator
from secure_infer.ckks.plan import CoefficientPlan, Privacy
from secure_infer.errors import InvalidHead, SettingsError, UnknownModel, UnsupportedHead
from secure_infer.heads import Head, ModelSpec
from secure_infer_server.settings import Policy, Settings


@dataclass(frozen=True)
class ServedModel:
    """A head with its evaluators by plan digest (bytes), the operator's level first."""

    spec: ModelSpec
    head: Head
    policy: Policy
    evaluators: dict[bytes, LinearEvaluator]
    no_plan_reason: str

    @property
    def digest(self) -> bytes:
        return bytes.fromhex(self.spec.digest)

    def plans(self, privacy: Privacy) -> list[CoefficientPlan]:
        """Plans of at least that level."""
        return [e.plan for e in self.evaluators.values() if e.plan.privacy.rank >= privacy.rank]

    @classmethod
    def compile(cls, name: str, head: Head, policy: Policy) -> ServedModel:
        linear, evaluators, reason = head.as_linear(), {}, ""
        if linear is None:
            kinds = ", ".join(sorted({layer.kind for layer in head.layers}))
            reason = (
                f"the head has layers {kinds}; encrypted evaluation takes affine heads: distil it into a linear one"
            )
        else:
            for level in Privacy:
                if level.rank < policy.privacy.rank:
                    continue
                try:
                    plan = planner.choose(
                        linear, head.contract, privacy=level, error=policy.error, smudging=policy.smudging
                    )
                except UnsupportedHead as problem:
                    reason = problem.message
                else:
                    evaluators[bytes.fromhex(plan.digest)] = LinearEvaluator(linear, plan)
        return cls(ModelSpec.of(name, head), head, policy, evaluators, reason)


class Registry:
    """Models by name. A file that does not load is kept as a reason, and never takes down the others."""

    def __init__(self, models: dict[str, ServedModel], rejected: dict[str, str]) -> None:
        self._models = models
        self.rejected = rejected

    @classmethod
    def load(cls, settings: Settings) -> Registry:
        """Load the directory; raises SettingsError when it holds no model at all."""
        directory: Path = settings.models
        if not directory.is_dir():
            raise SettingsError(f"--models: {directory} is not a directory")
        files = sorted(directory.glob("*.head"))
        if not files:
            raise SettingsError(
                f"--models: {directory} holds no *.head file; `secure-infer distill --out {directory}` makes some"
            )
        unknown = settings.policies.keys() - {file.stem for file in files}
        if unknown:
            raise SettingsError(f"a policy names {sorted(unknown)[0]!r}, which is not a model in {directory}")
        models, rejected = {}, {}
        for file in files:
            try:
                models[file.stem] = ServedModel.compile(file.stem, Head.load(file), settings.policy_of(file.stem))
            except InvalidHead as problem:
                rejected[file.stem] = problem.message
        if not models:
            raise SettingsError(f"--models: no file loads; {'; '.join(rejected.values())}")
        return cls(models, rejected)

    def names(self) -> list[str]:
        return sorted(self._models)

    def without_plan(self) -> list[str]:
        """Models that load but cannot be evaluated under encryption."""
        return [name for name in self.names() if not self._models[name].evaluators]

    def get(self, name: str) -> ServedModel:
        """The model; raises UnknownModel, naming those that are served."""
        if name in self._models:
            return self._models[name]
        if name in self.rejected:
            raise UnknownModel(f"model {name!r} is not served: its artifact does not load ({self.rejected[name]})")
        raise UnknownModel(f"unknown model {name[:64]!r}; served: {', '.join(self.names())}")
