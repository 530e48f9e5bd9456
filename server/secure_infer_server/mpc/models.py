"""The models that a party evaluates: every `*.head` of its directory with replicated weights, every `*.share` with shared ones.

A file that does not load is kept as a reason, and never takes down the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from tqdm import tqdm

from secure_infer.errors import (
    InvalidHead,
    MissingExtra,
    ModelChanged,
    PlanRefused,
    SettingsError,
    UnknownModel,
    UnsupportedHead,
)
from secure_infer.heads import Head, ModelSpec
from secure_infer.mpc import sharefile
from secure_infer.mpc.compiler import coarse, compile_head
from secure_infer.mpc.correlations import Recipe
from secure_infer.mpc.evaluate import Evaluator
from secure_infer.mpc.program import Answers, Comparisons, Program, Weights
from secure_infer.mpc.sharefile import ShareFile


@dataclass(frozen=True)
class PartyPolicy:
    """What the operators decide, alike at both parties. answers: what clients learn; logits by default. comparisons: how
    signs are found; tables by default. error: wanted bound on the logit error. Share files carry their owner's decisions:
    what is said here has to be the same."""

    answers: Answers | None = None
    comparisons: Comparisons | None = None
    error: float | None = None

    def require(self, half: ShareFile, file: Path) -> None:
        """Raise SettingsError when a share file was made with other decisions."""
        program, name = half.program, ""
        if self.answers not in (None, program.answers):
            name, made, got = "answers", f"answers {program.answers}", str(self.answers)
        elif self.comparisons not in (None, program.comparisons):
            name, made, got = "comparisons", f"comparisons {program.comparisons}", str(self.comparisons)
        elif self.error is not None and program.error_bound > coarse(self.error):
            name, made, got = "error", f"an error bound of {program.error_bound:g}", f"{self.error:g}"
        if name:
            raise SettingsError(
                f"--{name}: {file.name} was made with {made}, got {got}; make new halves with: "
                f"secure-infer share-model {file.stem}.head --{name} {got} --out DIR"
            )

    def options_beside(self, common: PartyPolicy) -> str:
        """The options that say something else than `common`, or all: "--answers"."""
        names = [field.name for field in fields(self)]
        differing = [name for name in names if getattr(self, name) != getattr(common, name)]
        return ", ".join(f"--{name}" for name in differing or names)


@dataclass(frozen=True)
class PartyModel:
    """One model at one party."""

    spec: ModelSpec
    program: Program
    evaluator: Evaluator

    @property
    def settings(self) -> dict[str, str]:
        """What was decided of it, by the operators or its owner."""
        names = ("weights", "answers", "comparisons")
        return {name: str(getattr(self.program, name)) for name in names}

    def recipe(self, rows: int) -> Recipe | None:
        """The correlations of a request of so many records; None when it takes none. No other shared model has the same."""
        return self.program.recipe(rows, self.spec.digest)

    def require(self, model_digest: bytes, program_digest: bytes) -> None:
        """Raise ModelChanged or PlanRefused unless these are the model's and its program's."""
        if model_digest.hex() != self.spec.digest:
            raise ModelChanged(
                f"model {self.spec.name!r}: the client pinned {model_digest.hex()[:12]}…, served is {self.spec.digest[:12]}…"
            )
        if program_digest.hex() != self.program.digest:
            raise PlanRefused(
                f"model {self.spec.name!r}: program {program_digest.hex()[:12]}… is not in use; ask for the model again"
            )


class PartyModels:
    """Models by name."""

    def __init__(self, models: dict[str, PartyModel], rejected: dict[str, str]) -> None:
        self._models = models
        self.rejected = rejected

    @classmethod
    def load(
        cls, directory: Path, party: int, policy: PartyPolicy, policies: Mapping[str, PartyPolicy] | None = None
    ) -> PartyModels:
        """Load the directory; policies: of models that differ from `policy`. Raises SettingsError when nothing loads."""
        if not directory.is_dir():
            raise SettingsError(f"--models: {directory} is not a directory")
        files = sorted([*directory.glob("*.head"), *directory.glob(f"*{sharefile.SUFFIX}")])
        if not files:
            raise SettingsError(f"--models: {directory} holds no *.head or *{sharefile.SUFFIX} file")
        twice = [stem for stem, count in Counter(file.stem for file in files).items() if count > 1]
        if twice:
            raise SettingsError(f"--models: {twice[0]}.head and {twice[0]}{sharefile.SUFFIX} have one name; keep one")
        names = sorted(file.stem for file in files)
        for name, single in (policies or {}).items():
            if name not in names:
                raise SettingsError(
                    f"{single.options_beside(policy)}: {name!r} is not a model in {directory}; there are: {', '.join(names)}"
                )
        models, rejected = {}, {}
        for file in tqdm(files, desc="compiling", unit="model", leave=False, disable=None):
            try:
                models[file.stem] = _loaded(file, party, (policies or {}).get(file.stem, policy))
            except (InvalidHead, UnsupportedHead, MissingExtra) as problem:
                rejected[file.stem] = problem.message
        if not models:
            raise SettingsError(f"--models: no file can be evaluated; {_by_reason(rejected)}")
        return cls(models, rejected)

    def names(self) -> list[str]:
        return sorted(self._models)

    def get(self, name: str) -> PartyModel:
        """The model; raises UnknownModel, naming those that are served."""
        if name in self._models:
            return self._models[name]
        if name in self.rejected:
            raise UnknownModel(f"model {name!r} is not served: {self.rejected[name]}")
        raise UnknownModel(f"unknown model {name[:64]!r}; served: {', '.join(self.names())}")


def _by_reason(rejected: Mapping[str, str]) -> str:
    """Reasons, each with the models that have it: "a, b: torch is not installed; c: ..."."""
    names: dict[str, list[str]] = {}
    for name, reason in rejected.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(found)}: {reason}" for reason, found in names.items())


def _loaded(file: Path, party: int, policy: PartyPolicy) -> PartyModel:
    if file.suffix == sharefile.SUFFIX:
        half = sharefile.load(file)
        if half.party != party:
            raise InvalidHead(
                f"{file.name}: this is party {half.party}'s half; party {party} needs party-{party}/{file.name} of the same run"
            )
        policy.require(half, file)
        return PartyModel(half.spec, half.program, Evaluator(half.program, half.tensors, party))
    head = Head.load(file)
    compiled = compile_head(
        head,
        error=policy.error,
        weights=Weights.REPLICATED,
        answers=policy.answers or Answers.LOGITS,
        comparisons=policy.comparisons or Comparisons.TABLES,
    )
    spec = ModelSpec.of(file.stem, head)
    return PartyModel(spec, compiled.program, Evaluator(compiled.program, compiled.tensors, party))
