"""Options of commands that serve a directory of models: when it is read again, and whose signatures are taken."""

from __future__ import annotations

import argparse
from pathlib import Path

from secure_infer_server.models.settings import GRACE_SECONDS, KEPT, WATCH_SECONDS, ReloadSettings


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("models that change while they are served")
    group.add_argument(
        "--reload",
        type=float,
        default=WATCH_SECONDS,
        metavar="SECONDS",
        help=f"look for new, changed and removed models that often (default {WATCH_SECONDS:g}); 0: only at the start",
    )
    group.add_argument(
        "--model-grace",
        type=float,
        default=GRACE_SECONDS,
        metavar="SECONDS",
        help=f"answer clients that pinned an earlier version for so long (default {GRACE_SECONDS:g})",
    )
    group.add_argument(
        "--model-versions",
        type=int,
        default=KEPT,
        metavar="N",
        help=f"earlier versions of one model that are kept for that at most (default {KEPT})",
    )
    group.add_argument(
        "--model-signers",
        type=Path,
        metavar="FILE",
        help="serve only models that one of these Ed25519 public keys (PEM) has signed; see sign-model",
    )
    group.add_argument(
        "--model-serials",
        type=Path,
        metavar="FILE",
        help="remember the newest signature of each model there, so that no older version is taken after a restart either",
    )


def settings(options: argparse.Namespace) -> ReloadSettings:
    """Raises SettingsError."""
    return ReloadSettings(
        watch=options.reload,
        grace=options.model_grace,
        kept=options.model_versions,
        signers=options.model_signers,
        serials=options.model_serials,
    )
