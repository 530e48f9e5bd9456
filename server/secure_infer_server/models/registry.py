"""The models of a CKKS server: every `*.head` of a directory, each with the plans its policy allows."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path

from secure_infer.ckks.calibration import unit_costs
from secure_infer.ckks.costs import UnitCosts
from secure_infer.ckks.plan import Plan
from secure_infer.errors import InvalidHead, SettingsError, UnknownModel, UnsupportedHead
from secure_infer.heads import Head
from secure_infer_server.models.directory import scan
from secure_infer_server.models.serials import Serials, require_newest
from secure_infer_server.models.served import Offered, ServedModel
from secure_infer_server.models.signatures import Signers
from secure_infer_server.models.versions import Versions
from secure_infer_server.models.watch import First, Read, Watch
from secure_infer_server.settings import Settings

SUFFIXES = (".head",)


@dataclass(frozen=True)
class HeadReader:
    """Reads and plans one head; see `watch.Reader`. costs: of this machine, for a process that did not measure them."""

    settings: Settings
    signers: Signers | None = None
    costs: UnitCosts | None = None

    def __call__(self, file: Path, known: Set[bytes] = frozenset(), newest: int = 0) -> Read[ServedModel]:
        """Raises InvalidHead, and UnsupportedHead where no plan fits a head that is to replace another."""
        head = Head.load(file)
        digest, serial = bytes.fromhex(head.digest), 0
        if self.signers is not None:
            serial = self.signers.require(file, head.digest).serial
            require_newest(file.stem, serial, newest)
        if digest in known:
            return Read(digest, serial, None)
        policy = self.settings.policy_of(file.stem)
        model = ServedModel.compile(file.stem, head, policy, self.settings.largest_batch, self.costs)
        if known and model.obstacle:
            raise UnsupportedHead(f"{file.name}: it cannot be evaluated under encryption: {model.obstacle}")
        return Read(digest, serial, model)


class Registry(Versions[ServedModel]):
    """Models by name. A file that does not load is kept as a reason, and never takes down the others."""

    @classmethod
    def load(cls, settings: Settings) -> Registry:
        """Load the directory; raises SettingsError when it holds no model at all. Writes nothing."""
        return cls.watched(settings)[0]

    @classmethod
    def watched(cls, settings: Settings) -> tuple[Registry, Watch[ServedModel]]:
        """The same, and what keeps it as the directory is, once it is started."""
        reload, directory = settings.reload, settings.models
        if not directory.is_dir():
            raise SettingsError(f"--models: {directory} is not a directory")
        files = scan(directory, SUFFIXES)
        if not files:
            raise SettingsError(
                f"--models: {directory} holds no *.head file; `secure-infer distill --out {directory}` makes some"
            )
        unknown = settings.policies.keys() - files.keys()
        if unknown:
            raise SettingsError(f"a policy names {sorted(unknown)[0]!r}, which is not a model in {directory}")
        serials = Serials(reload.serials)
        read = HeadReader(settings, None if reload.signers is None else Signers.of(reload.signers))
        first = First.read(files, read, serials, (InvalidHead,))
        if not first.models:
            raise SettingsError(f"--models: no file loads; {'; '.join(first.rejected.values())}")
        registry = cls(first.models, first.rejected, grace=reload.grace, kept=reload.kept, stamps=first.stamps)
        aside = settings.workers.count > 0
        read = replace(read, costs=unit_costs())
        watch = Watch(directory, SUFFIXES, registry, read, serials, reload.watch, process=aside, taken=first.serials)
        return registry, watch

    def without_plan(self) -> list[str]:
        """Models that load but cannot be evaluated under encryption."""
        return [model.name for model in self.models() if model.obstacle]

    def offered(self, name: str, digest: bytes) -> Offered | None:
        """The offer of that plan for single queries, of any version of the model; None where there is none."""
        try:
            versions = self.versions(name)
        except UnknownModel:
            return None
        return next((model.offered[digest] for model in versions if digest in model.offered), None)

    def plan(self, name: str, digest: bytes) -> Plan:
        """The plan of that digest, of any version of the model; raises UnknownModel or PlanRefused."""
        versions = self.versions(name)
        for model in versions:
            if digest in model.offered or digest in model.batches:
                return model.plan(digest)
        return versions[0].plan(digest)
