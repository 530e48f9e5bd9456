"""The way between client and server, and what a query takes on it: computing on both sides plus bytes over a link."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from secure_infer.ckks.costs import UnitCosts, Work
from secure_infer.errors import SettingsError

_BITS = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)([a-z]+)", re.ASCII)

PRESETS = {
    "loopback": "10gbit,50us",
    "lan": "1gbit,500us",
    "wan": "100mbit,40ms",
    "mobile": "10mbit/40mbit,60ms",
}
"""Names for typical links. Conventions, not measurements: a link that matters is given by its own figures."""


@dataclass(frozen=True)
class Link:
    """Bandwidth from the client (`up`) and to it (`down`) in bits a second, and the round trip in seconds."""

    up: float
    down: float
    round_trip: float

    @classmethod
    def parse(cls, text: str) -> Link:
        """A link from a preset's name, or BANDWIDTH,ROUND-TRIP or UP/DOWN,ROUND-TRIP, such as "10mbit/50mbit,40ms".

        Bandwidths in bit, kbit, mbit or gbit (a second), times in us, ms or s. Raises SettingsError.
        """
        cleaned = text.strip().lower()
        rates, comma, time = PRESETS.get(cleaned, cleaned).partition(",")
        up, slash, down = rates.partition("/")
        try:
            if not comma:
                raise ValueError("no round trip")
            upward = _quantity(up, _BITS)
            link = cls(upward, _quantity(down, _BITS) if slash else upward, _quantity(time, _SECONDS))
            if min(link.up, link.down) <= 0:
                raise ValueError("no bandwidth")
        except ValueError:
            raise SettingsError(
                f"link: expected {', '.join(PRESETS)}, or bandwidth and round trip such as 100mbit,20ms "
                f"(10mbit/50mbit,20ms where up and down differ), got {text[:40]!r}"
            ) from None
        return link

    def __str__(self) -> str:
        rates = [f"{rate / 1e6:.12g}mbit" for rate in (self.up, self.down)]
        return f"{rates[0] if self.up == self.down else '/'.join(rates)},{self.round_trip * 1e3:.12g}ms"

    def transfer(self, bytes_up: float, bytes_down: float, rounds: int = 1) -> float:
        """Seconds to carry that many bytes in `rounds` requests that wait for each other."""
        return 8 * bytes_up / self.up + 8 * bytes_down / self.down + rounds * self.round_trip


def _quantity(text: str, units: dict[str, float]) -> float:
    """A number with a unit; raises ValueError."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in units:
        raise ValueError("no quantity")
    value = float(match[1]) * units[match[2]]
    if not math.isfinite(value):
        raise ValueError("infinite")
    return value


@dataclass(frozen=True)
class Estimate:
    """One query in seconds, by where they are spent, and its bytes."""

    client: float
    server: float
    network: float
    bytes_up: int
    bytes_down: int

    @property
    def total(self) -> float:
        """Seconds from the caller's question to its answer; nothing overlaps."""
        return self.client + self.server + self.network


def estimate(
    work_server: Work,
    work_client: Work,
    bytes_up: int,
    bytes_down: int,
    link: Link,
    costs: UnitCosts,
    *,
    client_costs: UnitCosts | None = None,
    rounds: int = 1,
) -> Estimate:
    """What a query takes. `costs` are the server's; they serve for the client too where it gives none of its own."""
    return Estimate(
        client=work_client.total(client_costs or costs),
        server=work_server.total(costs),
        network=link.transfer(bytes_up, bytes_down, rounds),
        bytes_up=bytes_up,
        bytes_down=bytes_down,
    )
