"""The model files of a directory, and what tells one state of a file from another without reading it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from secure_infer.errors import InvalidHead
from secure_infer_server.models.signatures import signature_of

Stamp = tuple[tuple[str, int, int, int, int], ...]
"""Of each file: its name, inode, size, and times of change in ns, of which programs can set the first alone; zeros where
there is none."""


@dataclass(frozen=True)
class Found:
    """What there is of one model: a file, or by mistake several. stamp: of these and their signatures."""

    files: tuple[Path, ...]
    stamp: Stamp

    @property
    def file(self) -> Path:
        """Raises InvalidHead where there are several."""
        if len(self.files) > 1:
            raise InvalidHead(f"{' and '.join(file.name for file in self.files)} have one name; keep one")
        return self.files[0]


def scan(directory: Path, suffixes: tuple[str, ...]) -> dict[str, Found]:
    """The models by name, which is a file's stem; hidden files are somebody's who is still writing. Raises OSError."""
    files: dict[str, list[Path]] = {}
    for file in sorted(directory.iterdir()):
        if file.suffix in suffixes and not file.name.startswith("."):
            files.setdefault(file.stem, []).append(file)
    return {name: Found(tuple(found), stamp(found)) for name, found in files.items()}


def stamp(files: list[Path] | tuple[Path, ...]) -> Stamp:
    """Of those files and their signatures, as they are now."""
    return tuple(_stamp(each) for file in files for each in (file, signature_of(file)))


def _stamp(file: Path) -> tuple[str, int, int, int, int]:
    try:
        found = file.stat()
    except OSError:
        return file.name, 0, 0, 0, 0
    return file.name, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
