"""`secure-infer distill`: train the example heads from public data, or an encryptable student of one's own model."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from secure_infer.errors import SettingsError
from secure_infer.heads import Head

SAMPLES_FILE = "icd10_test.jsonl"
WDBC_FILE = "wdbc_test.csv"
TASKS = ("icd10", "wdbc", "all")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="secure-infer distill",
        description="Train the example heads from public data (about ten minutes on two cores; nothing is downloaded), "
        "or, with --from and --data, distil a model of your own into a head that can be evaluated under encryption.",
    )
    parser.add_argument("--seed", type=int, default=20260401, help="of splits and training (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="processor threads (default %(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="directory (default ./models); with --from a file (default student.head)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    examples = parser.add_argument_group("the example heads")
    examples.add_argument("--task", choices=TASKS, help="which to train (default all); wdbc needs no torch")
    examples.add_argument("--report", type=Path, metavar="FILE.md", help="write the figures of all heads made here too")
    examples.add_argument(
        "--quick", action="store_true", help="one small teacher, a tenth of the rows: a test, not a model"
    )
    own = parser.add_argument_group("your own model")
    own.add_argument(
        "--from", dest="teacher", metavar="MODEL", help="NAME.head, a TorchScript NAME.pt, or package.module:function"
    )
    own.add_argument(
        "--data", type=Path, metavar="FILE", help="rows as the model takes them: .npy, .npz (x, and y) or .csv (label)"
    )
    own.add_argument("--hidden", type=int, metavar="H", help="quadratic units of the student (default 0: linear)")
    own.add_argument(
        "--input-bound", type=float, metavar="B", help="largest |x_i| to accept (default: data, and margin)"
    )
    return parser


class _Progress:
    """A bar a stage on stderr; without a terminal, a line at the ends of a stage and every twenty seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._written, self._line = 0.0, ""
        self._bar: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._terminal:
            if self._bar is None or self._bar.desc != f"{stage}: ":
                self.close()
                self._bar = tqdm(desc=stage, total=total, leave=False, file=sys.stderr)
            self._bar.update(done - self._bar.n)
            return
        now = time.monotonic()
        line = f"distill: {stage} {done}/{total}\n"
        if line == self._line or (0 < done < total and now - self._written < 20):
            return
        self._written, self._line = now, line
        sys.stderr.write(line)
        sys.stderr.flush()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def run(arguments: list[str]) -> int:
    """Write the heads asked for; returns the exit status.

    Example heads: NAME.head and NAME.md of each, and the held-out rows, to the directory `--out`. With `--json`, stdout is
    {"seconds", "directory", "samples", "heads": {NAME: {"digest", "temperature", "facts"}}}.
    One's own model: the student to the file `--out`. With `--json`, stdout is the student's facts and its digest.
    """
    options = _parser().parse_args(arguments)
    if options.threads < 1:
        raise SettingsError(f"--threads: expected at least 1, got {options.threads}")
    if options.seed < 0:
        raise SettingsError(f"--seed: expected 0 or more, got {options.seed}")
    if options.teacher is None and options.data is None:
        for name in ("hidden", "input_bound"):
            if getattr(options, name) is not None:
                raise SettingsError(
                    f"--{name.replace('_', '-')}: is for a model of your own; give --from and --data too"
                )
        return _examples(options)
    if options.teacher is None or options.data is None:
        raise SettingsError("--from and --data: give both, the model to distil and rows to distil it on")
    if options.task is not None or options.report is not None or options.quick:
        raise SettingsError("--from: makes a student of your own model; leave out --task, --report and --quick")
    return _own(options)


def _examples(options: argparse.Namespace) -> int:
    from secure_infer.distill import card, report, wdbc

    options.out = options.out or Path("models")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"--out {options.out}: cannot be made a directory ({error.strerror})") from error
    if options.report is not None and (options.report.is_dir() or not options.report.parent.is_dir()):
        raise SettingsError(f"--report {options.report}: expected a file in a directory that exists")
    started = time.monotonic()
    task = options.task or "all"
    if task != "wdbc":
        import torch  # noqa: F401  (a missing extra is reported before minutes of work)
    progress = _Progress()
    heads: dict[str, Head] = {}
    samples = 0
    if task != "icd10":
        made = wdbc.build(options.seed)
        heads[wdbc.NAME], samples = made.head, len(made.labels)
        (options.out / WDBC_FILE).write_text(made.csv(), encoding="utf-8", newline="\n")
    if task != "wdbc":
        try:
            found, rows = _chapters(options, progress)
        finally:
            progress.close()
        heads, samples = found | heads, samples + rows
    for name, head in heads.items():
        head.save(options.out / f"{name}.head")
        text = wdbc.card(head) if name == wdbc.NAME else card.card(name, head)
        (options.out / f"{name}.md").write_text(text, encoding="utf-8")
    if options.report is not None:
        options.report.write_text(report.report(heads), encoding="utf-8")
    seconds = round(time.monotonic() - started, 1)
    if options.json:
        entries = {
            name: {"digest": head.digest, "temperature": head.temperature.tolist(), "facts": head.facts}
            for name, head in heads.items()
        }
        result = {"seconds": seconds, "directory": str(options.out), "samples": samples, "heads": entries}
        sys.stdout.write(json.dumps(result) + "\n")
        return 0
    for name, head in heads.items():
        sys.stdout.write(_summary(name, head.digest, head.facts))
    sys.stdout.write(f"written to {options.out} in {seconds:.0f} s\n")
    return 0


def _chapters(options: argparse.Namespace, progress: _Progress) -> tuple[dict[str, Head], int]:
    """The ICD-10-CM heads by name, and how many held-out texts were written."""
    from secure_infer.distill.pipeline import distill
    from secure_infer.distill.train import Settings
    from secure_infer_client.text import MiniLM

    make = Settings.quick if options.quick else Settings
    made = distill(MiniLM(threads=options.threads), make(seed=options.seed, threads=options.threads), progress)
    _write_samples(options.out / SAMPLES_FILE, made.test)
    return made.heads, len(made.test)


def _summary(name: str, digest: str, facts: dict[str, Any]) -> str:
    if "cross_validation" in facts:
        accuracy = facts["cross_validation"]["accuracy"]
        return f"{name:<22} cross-validated accuracy {accuracy:.1%}, digest {digest[:12]}\n"
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


def _own(options: argparse.Namespace) -> int:
    from secure_infer.distill import student, table, teachers

    out = options.out or Path("student.head")
    if out.suffix != ".head" or not out.resolve().parent.is_dir():
        raise SettingsError(f"--out {out}: expected NAME.head in a directory that exists")
    hidden = 0 if options.hidden is None else options.hidden
    rows = table.read(options.data)
    teacher = teachers.load(options.teacher, options.threads)
    progress = _Progress()
    try:
        made = student.distill(
            teacher,
            rows,
            student.Options(hidden, options.input_bound, options.seed, options.threads),
            lambda done, total: progress("student", done, total),
        )
    finally:
        progress.close()
    made.save(out)
    if options.json:
        sys.stdout.write(json.dumps(made.facts | {"digest": made.digest, "file": str(out)}) + "\n")
    else:
        sys.stdout.write(f"{student.summary(made)}written to {out}, digest {made.digest[:12]}\n")
    return 0
