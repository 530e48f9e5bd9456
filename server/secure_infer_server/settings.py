"""What the operator decides: where to listen, how to be reached, and the privacy of every model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from secure_infer.address import is_loopback
from secure_infer.ckks.plan import DEFAULT_SMUDGING, Privacy
from secure_infer.errors import SettingsError
from secure_infer_server.keys.settings import KeySettings
from secure_infer_server.models.settings import ReloadSettings
from secure_infer_server.process import DRAIN_SECONDS
from secure_infer_server.tls import Tls
from secure_infer_server.workers.settings import WorkerSettings

DEFAULT_BATCH_BYTES = 2 << 30
"""What the batches that are under way may take together."""


@dataclass(frozen=True)
class Policy:
    """A model's least privacy. privacy: the level. smudging: least smudging bits. error: wanted bound on the logit
    error; None: the default, which grows with the range of heads with hidden layers. batch_smudging: of batch plans; None:
    as `smudging`; 0: no batch plans, which hide the model only from key holders who made all their keys honestly."""

    privacy: Privacy = Privacy.BOTH_PRIVATE
    smudging: int = DEFAULT_SMUDGING
    error: float | None = None
    batch_smudging: int | None = None

    @property
    def least_batch_smudging(self) -> int:
        return self.smudging if self.batch_smudging is None else self.batch_smudging

    def __post_init__(self) -> None:
        if not 1 <= self.smudging <= 40:
            raise SettingsError(f"smudging: expected 1 to 40 bits, got {self.smudging}")
        if not 0 <= self.least_batch_smudging <= 40:
            raise SettingsError(f"batch smudging: expected 0 to 40 bits, got {self.batch_smudging}")
        if self.error is not None and not 0 < self.error < 1e6:
            raise SettingsError(f"error: expected a positive bound on the logit error, got {self.error}")


@dataclass(frozen=True)
class Settings:
    """One server. `policies` holds the models whose policy differs from `policy`. drain: seconds that calls under way have
    once it is to end."""

    models: Path
    host: str
    port: int
    tls: Tls | None = None
    insecure: bool = False
    policy: Policy = Policy()
    policies: Mapping[str, Policy] = field(default_factory=dict)
    plaintext_baseline: bool = False
    open_inference: bool = False
    reflection: bool = False
    key_bytes: int = 1 << 30
    keys: KeySettings = field(default_factory=KeySettings)
    blind_bytes: int = 256 << 20
    blinds_per_key: int = 48
    batches: int = 2
    batch_bytes: int = DEFAULT_BATCH_BYTES
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    reload: ReloadSettings = field(default_factory=ReloadSettings)
    drain: float = DRAIN_SECONDS

    def __post_init__(self) -> None:
        if self.tls is None and not self.insecure:
            raise SettingsError("no TLS: give --tls-cert and --tls-key, or --insecure for loopback only")
        if self.tls is not None and self.insecure:
            raise SettingsError("--insecure contradicts --tls-cert; give one of them")
        if self.insecure and not is_loopback(self.host):
            raise SettingsError(
                f"--insecure serves loopback only, got {self.host}; any other address needs --tls-cert and --tls-key"
            )

    @property
    def largest_batch(self) -> int:
        """Bytes that the evaluation of one batch may take."""
        return self.batch_bytes if self.batches else 0

    def policy_of(self, model: str) -> Policy:
        return self.policies.get(model, self.policy)
