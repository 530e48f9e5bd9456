"""CrypTen 0.4.1's own protocols for ReLU and argmax, run over our link on our correlations: the reference engine.

CrypTen (Knott et al., NeurIPS 2021) brings the protocols and nothing else. Its network, its makers of correlations and its
generators are replaced at its own seams, and no file of it is changed:

    needs          the correlations that each protocol takes; light, and so known to dealers and clients without torch
    session        what one call works with: a party, a link, correlations, keyed streams
    protocols      relu, argmax, positive: words in, words out; imports torch and CrypTen
    seams          puts ours in place of communicator, provider, generators and settings
    communicator   openings over the link
    provider       correlations from the bundle
    randomness     ring elements from keyed streams

This module and `needs` import without torch. CrypTen's wheel wants packages that do not install, hence the second command.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from secure_infer.errors import MissingExtra

VERSION = "0.4.1"
"""The one version whose seams are known."""

INSTALL = f"pip install 'secure-infer[mpc]' && pip install --no-deps crypten=={VERSION}"


def available() -> None:
    """Raises MissingExtra, with the command that helps, unless CrypTen and what it runs on are installed."""
    for package in ("torch", "yaml", "omegaconf", "crypten"):
        if not _found(package):
            raise MissingExtra(f"{package} is not installed; install it with: {INSTALL}", extra="mpc")
    if (got := _version()) != VERSION:
        raise MissingExtra(f"crypten: expected version {VERSION}, got {got}; install it with: {INSTALL}", extra="mpc")


def _found(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _version() -> str:
    try:
        return version("crypten")
    except PackageNotFoundError:
        return "none"
