"""`secure-infer bench report`: a page, pictures and the figures of a README, all drawn from one report."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from secure_infer import whole
from secure_infer.errors import MissingExtra, SettingsError
from secure_infer_benchmarks import figures
from secure_infer_benchmarks.report import blocks, markdown, reading, sections


def run(arguments: list[str]) -> int:
    """Draw what is asked for; 1 when --check finds a block that is not what the report says."""
    options = _parser().parse_args(arguments)
    if options.check and not options.markdown:
        raise SettingsError("--check takes --markdown FILE")
    if not (options.html or options.png or options.markdown):
        raise SettingsError("nothing to draw: expected --html FILE, --png FOLDER or --markdown FILE")
    report = reading.checked(figures.load(options.report), str(options.report))
    # All of the files are looked at before the first is written.
    found = [markdown.held_against(report, path) for path in options.markdown]
    if options.html or options.png:
        needs_matplotlib()
    told: dict[str, Any] = {"suites": list(report["suites"]), "without_section": sections.unknown(report)}
    if options.html:
        told["html"] = _html(report, options.report, options.html)
    if options.png:
        told["png"] = _png(report, options.png)
    if found:
        told["markdown"] = [{"file": str(one.path), "blocks": one.blocks, "differ": one.differ} for one in found]
    if not options.check:
        for one in found:
            markdown.rewrite(one)
    sys.stdout.write(json.dumps(told) + "\n" if options.json else _text(told, options.check))
    return int(options.check and any(one.differ for one in found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("secure-infer bench report", description=__doc__)
    parser.add_argument("report", type=Path, metavar="RESULTS.json", help="what `secure-infer bench --out` wrote")
    parser.add_argument("--html", type=Path, metavar="FILE", help="one self-contained page, which needs no network")
    parser.add_argument("--png", type=Path, metavar="FOLDER", help="every chart as FOLDER/NAME.png")
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="rewrite the blocks <!-- bench:NAME --> ... <!-- /bench --> of a file; may be given again; "
        f"NAME: {', '.join(blocks.BLOCKS)}",
    )
    parser.add_argument("--check", action="store_true", help="change no Markdown; exit 1 when a block disagrees")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def needs_matplotlib() -> None:
    """Raises MissingExtra without it."""
    if find_spec("matplotlib") is None:
        raise MissingExtra(
            "matplotlib is not installed; install it with: pip install 'secure-infer[bench]'", extra="bench"
        )


def _html(report: Mapping[str, Any], source: Path, path: Path) -> dict[str, Any]:
    from secure_infer_benchmarks.report.page import page

    data = page(report, hashlib.sha256(source.read_bytes()).hexdigest()).encode()
    _write(path, data)
    return {"file": str(path), "bytes": len(data)}


def _png(report: Mapping[str, Any], folder: Path) -> list[str]:
    from secure_infer_benchmarks.report import drawing, rendering

    written = []
    for chart in sections.pictures(report):
        with drawing.style():
            figure = chart.draw(False)
        _write(folder / f"{chart.name}.png", rendering.png(figure))
        written.append(str(folder / f"{chart.name}.png"))
    return written


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.write(path, data)
    except OSError as problem:
        raise SettingsError(f"{path} cannot be written: {type(problem).__name__}") from None


def _text(told: Mapping[str, Any], check: bool) -> str:
    lines = []
    if "html" in told:
        lines.append(f"{told['html']['file']}: {told['html']['bytes']:,} bytes")
    if "png" in told:
        lines.append(f"{len(told['png'])} pictures: {', '.join(told['png'])}")
    for one in told.get("markdown", []):
        differ = ", ".join(one["differ"])
        if check:
            lines.append(f"{one['file']}: {f'not what the report says: {differ}' if differ else 'as the report says'}")
        else:
            lines.append(f"{one['file']}: {f'rewritten: {differ}' if differ else 'was up to date'}")
    if told["without_section"]:
        lines.append(f"suites without a section: {', '.join(told['without_section'])}")
    return "\n".join(lines) + "\n"
