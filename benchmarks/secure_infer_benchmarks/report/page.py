"""The page: one file that asks for nothing else, for managers from the top, for engineers down to the last figure."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

from secure_infer_benchmarks.report import answer, drawing, reading, rendering, svg, words
from secure_infer_benchmarks.report.charts.chart import Chart
from secure_infer_benchmarks.report.colours import COLOURS
from secure_infer_benchmarks.report.sections import SUITES, Section, sections, unknown
from secure_infer_benchmarks.report.tables import Table

TITLE = "What does it cost to keep the input, and the model, private?"


def page(report: Mapping[str, Any], digest: str) -> str:
    """HTML. digest: SHA-256 of the report's file, so that page and file can be told to belong together."""
    css = style_sheet()
    # Only this style sheet, no script, nothing from elsewhere; the empty icon keeps browsers from asking for one.
    policy = (
        f"default-src 'none'; style-src 'sha256-{_sha256(css)}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    found = sections(report)
    body = [_section(section, at) for at, section in enumerate(found)]
    links = [(section.suite, section.title) for section in found] + [("reproduce", "How it was measured")]
    nav = "".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title in links)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        f'<title>{escape(TITLE)}</title><link rel="icon" href="data:,">',
        f"<style>{css}</style></head><body>",
        '<a class="skip" href="#main">To the content</a>',
        f'<main id="main"><header><h1>{escape(TITLE)}</h1><p class="read">{escape(read_on(report))}</p>',
        f'<nav aria-label="Sections"><ul>{nav}</ul></nav></header>',
        _answer(report),
        *body,
        _reproduce(report, found),
        "</main>",
        f"<footer><p>Drawn from the report with SHA-256 <code>{escape(digest)}</code>; nothing on this page was entered "
        "by hand.</p></footer></body></html>",
    ]
    return "\n".join(parts) + "\n"


def style_sheet() -> str:
    """With the colours of light and dark."""
    light, dark = ("".join(f"--{name}: {pair[at]}; " for name, pair in COLOURS.items()) for at in (0, 1))
    css = (files("secure_infer_benchmarks.report") / "page.css").read_text(encoding="utf-8")
    darker = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n"
    return css.replace("/* COLOURS */", light) + darker


def read_on(report: Mapping[str, Any]) -> str:
    date, machine = report.get("date", "on an unknown date"), reading.machine(report)
    return f"Measured {date} on {machine}. Ratios carry over, milliseconds do not."


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _answer(report: Mapping[str, Any]) -> str:
    told = answer.sentences(report)
    if not told:
        return ""
    tiles = "".join(f"<div><dt>{escape(of)}</dt><dd>{escape(ratio)}</dd></div>" for ratio, of in answer.tiles(report))
    shown = f'<dl class="tiles">{tiles}</dl><p class="unit">Times the plaintext call of the same server, in the same run.</p>'
    paragraphs = "".join(f"<p>{_bold(sentence)}</p>" for sentence in told)
    return f'<div class="card answer"><h2>In short</h2>{shown if tiles else ""}{paragraphs}</div>'


def _bold(sentence: str) -> str:
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(sentence))


def _section(section: Section, at: int) -> str:
    figures = "".join(_figure(chart, f"s{at}c{nth}") for nth, chart in enumerate(section.charts))
    tables = "".join(f'<div class="card">{_table(table)}</div>' for table in section.tables)
    more = _folded(section.more, section.more_title) if section.more else ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in section.notes)
    made = (
        "" if section.suite not in SUITES else f'<p class="made">Measured by <code>{command(section.suite)}</code></p>'
    )
    return (
        f'<section id="{section.suite}" aria-labelledby="{section.suite}-title">'
        f'<h2 id="{section.suite}-title">{escape(section.title)}</h2>{made}{figures}{tables}'
        + (f'<div class="card">{more}</div>' if more else "")
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
        + "</section>"
    )


def command(suite: str) -> str:
    return f"secure-infer bench --suite {suite}"


def _figure(chart: Chart, prefix: str) -> str:
    drawn = []
    for narrow, kind in ((False, "broad"), (True, "narrow")):
        with drawing.style():
            figure = chart.draw(narrow)
        drawn.append(svg.inline(rendering.svg(figure), f"{prefix}{kind[0]}", kind, chart.title, chart.description))
    return (
        f'<figure class="card"><h3>{escape(chart.title)}</h3>{"".join(drawn)}'
        f"<figcaption>{escape(chart.description)}</figcaption>{_folded([chart.table], 'The numbers')}</figure>"
    )


def _folded(tables: list[Table], summary: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{''.join(map(_table, tables))}</details>"


def _table(table: Table) -> str:
    """Wider than the page it scrolls by itself, by keyboard as well."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{escape(table.caption)}">{table.html()}</div>'


def _reproduce(report: Mapping[str, Any], found: list[Section]) -> str:
    machine = report.get("machine", {})
    versions = ", ".join(f"{name} {number}" for name, number in machine.get("versions", {}).items())
    memory = machine.get("memory_bytes")
    facts = {
        "Command": str(report.get("command", "")),
        "Date": str(report.get("date", "")),
        "Processor": f"{machine.get('processor', '')}, {machine.get('cores', '?')} cores",
        "Memory": "" if not isinstance(memory, int | float) else words.size(memory),
        "System": f"{machine.get('system', '')}, Python {machine.get('python', '')}",
        "Versions": versions,
        "Threads of the linear algebra": str(machine.get("threads", "")),
        "Load average": f"{machine.get('load_average_before', '?')} before, {machine.get('load_average_after', '?')} after",
    }
    told = "".join(f"<dt>{escape(name)}</dt><dd>{escape(held)}</dd>" for name, held in facts.items() if held)
    steps = Table("Each section by itself", ("section", "command", "took"))
    for section in found:
        seconds = report["suites"].get(section.suite, {}).get("seconds")
        if section.suite in report["suites"]:
            took = "" if not isinstance(seconds, int | float) else f"{words.number(seconds)} s"
            steps.row(section.title, f"{command(section.suite)} --out RESULTS.json", took)
    listed = unknown(report)
    others = (
        f'<p class="made">Also in this report, without a section here: {escape(", ".join(listed))}.</p>'
        if listed
        else ""
    )
    return (
        '<section id="reproduce" aria-labelledby="reproduce-title"><h2 id="reproduce-title">How it was measured</h2>'
        f'<div class="card"><dl class="facts">{told}</dl></div><div class="card">{_table(steps)}'
        '<p class="made">This page: <code>secure-infer bench report RESULTS.json --html page.html</code></p>'
        f"{others}</div></section>"
    )
