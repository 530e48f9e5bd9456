"""The models that a party evaluates: every `*.head` of its directory with replicated weights, every `*.share` with shared ones.

A file that does not load is kept as a reason, and never takes down the others. Each party watches its own directory: while one
has a version and the other has not, clients are told that the halves differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from secure_infer.errors import InvalidHead, MissingExtra, PlanRefused, SettingsError, UnsupportedHead
from secure_infer.heads import Head, ModelSpec
from secure_infer.mpc import sharefile
from secure_infer.mpc.compiler import coarse, compile_head
from secure_infer.mpc.correlations import Recipe
from secure_infer.mpc.evaluate import Evaluator
from secure_infer.mpc.program import Answers, Comparisons, Program, Weights
from secure_infer.mpc.sharefile import ShareFile
from secure_infer_server.models.directory import scan
from secure_infer_server.models.serials import Serials, require_newest
from secure_infer_server.models.settings import ReloadSettings
from secure_infer_server.models.signatures import Signers
from secure_infer_server.models.versions import Versions
from secure_infer_server.models.watch import First, Read, Watch

SUFFIXES = (".head", sharefile.SUFFIX)


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
    def name(self) -> str:
        return self.spec.name

    @cached_property
    def digest(self) -> bytes:
        return bytes.fromhex(self.spec.digest)

    @property
    def obstacle(self) -> str:
        """Nothing: what cannot be evaluated is not compiled."""
        return ""

    @property
    def message_bytes(self) -> int:
        """Of the largest half or answer."""
        most = self.program.most_rows
        return max(self.program.share_bytes(most), self.program.answer_bytes(most))

    @property
    def settings(self) -> dict[str, str]:
        """What was decided of it, by the operators or its owner."""
        names = ("weights", "answers", "comparisons")
        return {name: str(getattr(self.program, name)) for name in names}

    def recipe(self, rows: int) -> Recipe | None:
        """The correlations of a request of so many records; None when it takes none. No other shared model has the same."""
        return self.program.recipe(rows, self.spec.digest)

    def require(self, program_digest: bytes) -> None:
        """Raise PlanRefused unless that is its program's."""
        if program_digest.hex() != self.program.digest:
            raise PlanRefused(
                f"model {self.spec.name!r}: program {program_digest.hex()[:12]}… is not in use; ask for the model again"
            )


@dataclass(frozen=True)
class PartyReader:
    """Reads and compiles one file; see `watch.Reader`. policies: of models that differ from `policy`."""

    party: int
    policy: PartyPolicy
    policies: Mapping[str, PartyPolicy]
    signers: Signers | None = None

    def __call__(self, file: Path, known: Set[bytes] = frozenset(), newest: int = 0) -> Read[PartyModel]:
        """Raises InvalidHead, UnsupportedHead, MissingExtra, and SettingsError for a share file of other decisions."""
        half = self._half(file) if file.suffix == sharefile.SUFFIX else None
        head = Head.load(file) if half is None else None
        hexadecimal = half.spec.digest if half is not None else head.digest if head is not None else ""
        digest, serial = bytes.fromhex(hexadecimal), 0
        if self.signers is not None:
            serial = self.signers.require(file, hexadecimal).serial
            require_newest(file.stem, serial, newest)
        if digest in known:
            return Read(digest, serial, None)
        if half is not None:
            model = PartyModel(half.spec, half.program, Evaluator(half.program, half.tensors, self.party))
        elif head is not None:
            model = self._compiled(file.stem, head)
        return Read(digest, serial, model)

    def _half(self, file: Path) -> ShareFile:
        half = sharefile.load(file)
        if half.party != self.party:
            raise InvalidHead(
                f"{file.name}: this is party {half.party}'s half; party {self.party} needs party-{self.party}/{file.name} "
                "of the same run"
            )
        self._policy_of(file.stem).require(half, file)
        return half

    def _compiled(self, name: str, head: Head) -> PartyModel:
        policy = self._policy_of(name)
        compiled = compile_head(
            head,
            error=policy.error,
            weights=Weights.REPLICATED,
            answers=policy.answers or Answers.LOGITS,
            comparisons=policy.comparisons or Comparisons.TABLES,
        )
        evaluator = Evaluator(compiled.program, compiled.tensors, self.party)
        return PartyModel(ModelSpec.of(name, head), compiled.program, evaluator)

    def _policy_of(self, name: str) -> PartyPolicy:
        return self.policies.get(name, self.policy)


class PartyModels(Versions[PartyModel]):
    """Models by name. A file that does not load is kept as a reason, and never takes down the others."""

    @classmethod
    def load(
        cls,
        directory: Path,
        party: int,
        policy: PartyPolicy,
        policies: Mapping[str, PartyPolicy] | None = None,
        reload: ReloadSettings | None = None,
    ) -> PartyModels:
        """Load the directory; policies: of models that differ from `policy`. Raises SettingsError when nothing loads."""
        return cls.watched(directory, party, policy, policies or {}, reload or ReloadSettings())[0]

    @classmethod
    def watched(
        cls,
        directory: Path,
        party: int,
        policy: PartyPolicy,
        policies: Mapping[str, PartyPolicy],
        reload: ReloadSettings,
    ) -> tuple[PartyModels, Watch[PartyModel]]:
        """The same, and what keeps them as the directory is, once it is started."""
        if not directory.is_dir():
            raise SettingsError(f"--models: {directory} is not a directory")
        files = scan(directory, SUFFIXES)
        if not files:
            raise SettingsError(f"--models: {directory} holds no *.head or *{sharefile.SUFFIX} file")
        twice = [name for name, found in files.items() if len(found.files) > 1]
        if twice:
            raise SettingsError(f"--models: {twice[0]}.head and {twice[0]}{sharefile.SUFFIX} have one name; keep one")
        for name, single in policies.items():
            if name not in files:
                raise SettingsError(
                    f"{single.options_beside(policy)}: {name!r} is not a model in {directory}; there are: "
                    f"{', '.join(sorted(files))}"
                )
        serials = Serials(reload.serials)
        read = PartyReader(party, policy, policies, None if reload.signers is None else Signers.of(reload.signers))
        first = First.read(files, read, serials, (InvalidHead, UnsupportedHead, MissingExtra))
        if not first.models:
            raise SettingsError(f"--models: no file can be evaluated; {_by_reason(first.rejected)}")
        models = cls(first.models, first.rejected, grace=reload.grace, kept=reload.kept, stamps=first.stamps)
        return models, Watch(directory, SUFFIXES, models, read, serials, reload.watch, taken=first.serials)


def _by_reason(rejected: Mapping[str, str]) -> str:
    """Reasons, each with the models that have it: "a, b: torch is not installed; c: ..."."""
    names: dict[str, list[str]] = {}
    for name, reason in rejected.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(found)}: {reason}" for reason, found in names.items())
