"""The flag that says how long calls under way have once the process is to end."""

from __future__ import annotations

import argparse

from secure_infer.errors import SettingsError
from secure_infer_server.process import DRAIN_SECONDS

LONGEST = 3600.0


def add_option(parser: argparse.ArgumentParser) -> None:
    """--drain."""
    parser.add_argument(
        "--drain",
        type=float,
        default=DRAIN_SECONDS,
        metavar="SECONDS",
        help=f"that calls under way have at most after SIGTERM; a second signal ends them at once ({DRAIN_SECONDS:g})",
    )


def seconds(options: argparse.Namespace) -> float:
    """Raises SettingsError for none or a wait without an end."""
    if not 0 <= options.drain <= LONGEST:
        raise SettingsError(f"--drain: expected 0 to {LONGEST:g} seconds, got {options.drain:g}")
    return float(options.drain)
