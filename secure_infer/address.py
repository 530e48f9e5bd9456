"""Addresses as people write them: HOST:PORT."""

from __future__ import annotations

import ipaddress

from secure_infer.errors import SettingsError


def parse(value: str, what: str) -> tuple[str, int]:
    """(host, port) of "HOST:PORT"; raises SettingsError, naming `what`."""
    if "://" in value:
        raise SettingsError(
            f"{what}: expected HOST:PORT without a scheme, got {value!r}; drop {value.partition('://')[0]}://"
        )
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"{what}: expected HOST:PORT with a port from 0 to 65535, got {value!r}")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """True for localhost and loopback addresses: this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
