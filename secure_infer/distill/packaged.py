"""Data files of installed packages, read without importing the packages (one of them takes seconds to import)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def read(package: str, file: str) -> bytes:
    """The bytes of `file`, a path inside the installed `package`; raises ModuleNotFoundError without the package."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return (Path(found.submodule_search_locations[0]) / file).read_bytes()
