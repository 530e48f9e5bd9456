"""`secure-infer distill`: train the example heads from public data and write them with their cards."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from secure_infer.errors import SettingsError

SAMPLES_FILE = "icd10_test.jsonl"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="secure-infer distill",
        description="Train the two example heads (ICD-10-CM chapter from diagnosis text) from public data: "
        "five to fifteen minutes on two cores. Nothing is downloaded.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("models"), metavar="DIR", help="where to write (default ./models)"
    )
    parser.add_argument(
        "--seed", type=int, default=20260401, help="of the split and of the training (default %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="processor threads (default %(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="one small teacher, a tenth of the rows: a test, not a model"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser


class _Progress:
    """One line on stderr: rewritten on a terminal, else one at the ends of a stage and every twenty seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._written = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._terminal and 0 < done < total and now - self._written < 20:
            return
        self._written = now
        line = f"distill: {stage} {done}/{total}"
        sys.stderr.write(f"\r\x1b[K{line}" if self._terminal else f"{line}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Leave the terminal with an empty line."""
        if self._terminal:
            sys.stderr.write("\r\x1b[K")


def run(arguments: list[str]) -> int:
    """Write NAME.head and NAME.md for both heads, and the held-out texts, to `--out`; returns the exit status.

    With `--json`, stdout is {"seconds", "directory", "samples", "heads": {NAME: {"digest", "temperature", "facts"}}}.
    """
    options = _parser().parse_args(arguments)
    if options.threads < 1:
        raise SettingsError(f"--threads: expected at least 1, got {options.threads}")
    from secure_infer.distill.card import card
    from secure_infer.distill.pipeline import distill
    from secure_infer.distill.train import Settings
    from secure_infer_client.text import MiniLM

    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--out {options.out}: cannot be made a directory ({error.strerror})") from error
    import torch  # noqa: F401  (a missing extra is reported before minutes of embedding)

    started = time.monotonic()
    make = Settings.quick if options.quick else Settings
    progress = _Progress()
    try:
        made = distill(MiniLM(threads=options.threads), make(seed=options.seed, threads=options.threads), progress)
    finally:
        progress.close()
    for name, head in made.heads.items():
        head.save(options.out / f"{name}.head")
        (options.out / f"{name}.md").write_text(card(name, head), encoding="utf-8")
    _write_samples(options.out / SAMPLES_FILE, made.test)
    seconds = round(time.monotonic() - started, 1)
    if options.json:
        heads = {
            name: {"digest": head.digest, "temperature": float(head.temperature), "facts": head.facts}
            for name, head in made.heads.items()
        }
        result = {"seconds": seconds, "directory": str(options.out), "samples": len(made.test), "heads": heads}
        sys.stdout.write(json.dumps(result) + "\n")
        return 0
    for name, head in made.heads.items():
        sys.stdout.write(_summary(name, head.digest, head.facts))
    sys.stdout.write(f"written to {options.out} in {seconds:.0f} s\n")
    return 0


def _summary(name: str, digest: str, facts: dict[str, Any]) -> str:
    own = facts["head"]
    test, taught = own["test"]["accuracy"], facts["teacher"]["test"]["accuracy"]
    return (
        f"{name:<22} test accuracy {test:.1%} (teacher {taught:.1%}), range {own['range']:.1f}, digest {digest[:12]}\n"
    )


def _write_samples(path: Path, rows: tuple[Any, ...]) -> None:
    from secure_infer.distill.icd10 import CHAPTERS

    lines = (
        json.dumps({"text": row.text, "label": CHAPTERS[row.chapter], "code": row.code}, ensure_ascii=False)
        for row in rows
    )
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
