"""The session of each scheme, and the targets it takes: one server under "ckks", two parties under "mpc"."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc

from secure_infer import address
from secure_infer.ckks.link import Link
from secure_infer.ckks.plan import Privacy
from secure_infer.errors import PrivacyRefused, SecureInferError, SettingsError
from secure_infer.heads import ModelSpec
from secure_infer_client.keyring import Entry, KeyRing
from secure_infer_client.mpc.session import SharedSession
from secure_infer_client.ringstate import Name
from secure_infer_client.session import Session, parse_privacy

SCHEMES = ("ckks", "mpc")


def targets_of(target: str | Sequence[str], scheme: str) -> tuple[str, ...]:
    """The addresses, checked: one for "ckks", two different ones for "mpc"; raises SettingsError."""
    if scheme not in SCHEMES:
        raise SettingsError(f"scheme: expected one of {', '.join(SCHEMES)}, got {scheme!r}")
    given = (target,) if isinstance(target, str) else target
    if not isinstance(given, tuple | list) or not all(isinstance(one, str) for one in given):
        raise SettingsError(f"target: expected 'HOST:PORT', or two of them, got {type(target).__name__}")
    parsed = [address.parse(one, "target") for one in given]
    if scheme == "ckks" and len(given) != 1:
        hint = "; for two parties add --scheme mpc (scheme='mpc')" if len(given) == 2 else ""
        raise SettingsError(f"target: expected one server, 'HOST:PORT', for scheme 'ckks', got {len(given)}{hint}")
    if scheme == "mpc":
        if len(given) != 2:
            raise SettingsError(
                f"target: expected two parties for scheme 'mpc', ('A:PORT', 'B:PORT') or --target twice, got {len(given)}"
            )
        if parsed[0] == parsed[1]:
            raise SettingsError(f"target: expected two parties, got {given[0]} twice; one party would see both halves")
    return tuple(given)


def open_session(
    targets: Sequence[str],
    scheme: str,
    connect: Callable[[str], grpc.Channel],
    *,
    model: str,
    privacy: str | None,
    link: str | None,
    timeout: float,
    accept_model: Callable[[ModelSpec], bool] | None,
    key_ring: KeyRing | None,
) -> tuple[Session | SharedSession, list[grpc.Channel]]:
    """A session and the channels under it, which are the caller's to close. Nothing is sent yet."""
    wanted = parse_privacy(privacy)
    local = all(address.is_loopback(address.parse(one, "target")[0]) for one in targets)
    way = Link.parse(link or ("loopback" if local else "lan"))
    if scheme == "mpc" and wanted is Privacy.INPUT_PRIVATE:
        raise PrivacyRefused("privacy: two parties give no less than both-private; leave privacy out")
    channels: list[grpc.Channel] = []
    try:
        for one in targets:
            channels.append(connect(one))
        entry = (
            Entry(Name(scheme, tuple(targets), model)) if key_ring is None else key_ring.entry(scheme, targets, model)
        )
    except SecureInferError:
        for channel in channels:
            channel.close()
        raise
    if scheme == "mpc":
        return SharedSession(targets, channels, model, timeout, accept_model, entry), channels
    return Session(channels[0], targets[0], model, wanted, way, timeout, accept_model, entry), channels
