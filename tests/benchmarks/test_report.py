"""The report's words, tables and blocks, its command, and what it says of reports that are none."""

from __future__ import annotations

import doctest
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmark_reports import report
from secure_infer.errors import MissingExtra, SettingsError
from secure_infer_benchmarks import ranks
from secure_infer_benchmarks.report import answer, blocks, colours, command, markdown, reading, sections, words
from secure_infer_benchmarks.report.charts import cost, peers
from secure_infer_benchmarks.report.tables import Table


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return report()


@pytest.fixture
def saved(found: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(found))
    return path


@pytest.mark.parametrize("module", [words, colours, reading, ranks], ids=lambda module: module.__name__)
def test_examples_in_docstrings(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("side", [0, 1], ids=["light", "dark"])
def test_colours_stand_out_from_the_card_they_lie_on(side: int) -> None:
    of = {name: pair[side] for name, pair in colours.COLOURS.items()}
    assert all(colours.contrast(of[name], of["card"]) >= 3 for name in colours.SERIES)
    assert all(
        colours.contrast(of[name], of[on]) >= 4.5 for name in ("ink", "muted") for on in ("card", "sunk", "paper")
    )
    assert colours.contrast(of["accent"], of["card"]) >= 4.5


def test_numbers_are_rounded_the_same_at_every_size() -> None:
    assert [words.number(x) for x in (0, 0.99951, 9.996, 99.96, 1e-5)] == ["0", "1.00", "10.0", "100", "1e-05"]
    assert [words.size(x) for x in (999, 999_600, 1e9)] == ["999 B", "1.00 MB", "1.00 GB"]
    assert words.percent(0.9996) == ">99.9%"


def test_a_table_refuses_rows_of_another_width() -> None:
    with pytest.raises(ValueError, match="expected 2 cells, got 3"):
        Table("t", ("", "a")).row("x", "1", "2")


def test_a_tables_text_is_escaped_in_html_and_aligned_as_text() -> None:
    table = Table("<t>", ("", "n", "said"))
    table.heading("of & all")
    table.row("a<b", "12", "yes, it is")
    assert "<t>" not in table.html()
    assert "a&lt;b" in table.html()
    assert table.text().splitlines() == ["        n  said", "of & all", "  a<b  12  yes, it is"]


def test_the_answer_names_ratios_bytes_agreement_and_who_is_ahead(found: dict[str, Any]) -> None:
    told = answer.sentences(found)
    assert len(told) == 4
    rows = {row["id"]: row for row in reading.rows(found, "cost")}
    ratio = rows["icd10-chapter-linear/ckks"]["figures"]["ratio"]["median"]
    assert f"**{ratio:.1f} times** the plaintext call for icd10-chapter-linear" in told[0]
    assert "three operators, no two of whom collude" in told[1]
    assert "99.98%" in told[2]
    assert "ahead of us: desilofhe, diagonals (1.2 × faster)" in told[3] or "(1.3 × faster)" in told[3]


def test_the_answer_prefers_rows_that_hide_the_model_too(found: dict[str, Any]) -> None:
    row = next(row for row in reading.rows(found, "cost") if row["id"] == "icd10-chapter/ckks")
    cheap = json.loads(json.dumps(row)) | {"id": "icd10-chapter/ckks, input private"}
    cheap["figures"]["ratio"]["median"] = 1.1
    cheap["security"]["model_private"] = False
    assert [row["id"] for row in answer.cheapest([row, cheap], "ckks")] == ["icd10-chapter/ckks"]
    assert [row["id"] for row in answer.cheapest([cheap], "ckks")] == ["icd10-chapter/ckks, input private"]


def test_nothing_is_said_of_suites_that_are_not_there() -> None:
    alone = report(suites=("start",))
    assert answer.sentences(alone) == []
    assert [section.suite for section in sections.sections(alone)] == ["start"]
    assert sections.unknown(alone | {"suites": {"extraction": {"rows": []}}}) == ["extraction"]


def test_the_frontier_is_what_nothing_beats_in_both() -> None:
    def row(name: str, ms: float, size: int) -> dict[str, Any]:
        return {"id": name, "figures": {"call_ms": {"median": ms}}, "counts": {"bytes_up": size}}

    rows = [row("a", 1, 9), row("b", 2, 5), row("c", 3, 6), row("d", 4, 1), row("e", 1, 9)]
    assert [row["id"] for row in cost.frontier(rows)] == ["a", "b", "d", "e"]


def test_peers_are_held_against_our_fastest_row(found: dict[str, Any]) -> None:
    rows = [row for row in reading.rows(found, "peers") if row["workload"] == "square-384-64-10"]
    ours = peers.unit(rows[-1], rows)
    assert ours is not None
    assert ours["variant"] == "slots"
    beside = peers.besides(rows, {"rows": rows})
    told = {row["who"]: peers.verdict(row, beside) for row in rows}
    assert "faster" in told["openfhe"]
    assert "slower" in told["desilofhe"]
    assert "no package for this Python" in peers.notes(rows[-1])
    assert told["helayers"] == "not measured"
    said = [{"id": rows[2]["id"], "to": ours["id"], "ratios": {"server_ms": 0.5, "bytes": 3.0}, "told": "Ours is not."}]
    beside = peers.besides(rows, {"rows": rows, "ahead": said})  # a suite that says so itself is believed
    assert peers.verdict(rows[2], beside) == "ours 2.0 × slower"
    assert peers.verdict(rows[3], beside) == "–"
    # A protocol among operators is no unit for what one server does, and the other way round.
    quick = {**ours, "id": "shared", "security": {"model_private": True, "rests_on": "two who do not collude"}}
    quick["figures"] = {"server_ms": {"median": 0.1, "low": 0.1, "high": 0.1}}
    assert peers.unit(rows[0], [*rows, quick]) == ours
    other = {"id": "other", "ours": False, "security": {"rests_on": "three who do not collude"}}
    assert peers.unit(other, [*rows, quick]) == quick
    assert peers.unit(other, rows) is None


@pytest.mark.parametrize("name", blocks.BLOCKS)
def test_blocks_are_narrow_and_say_where_they_come_from(found: dict[str, Any], name: str) -> None:
    lines = blocks.block(found, name).splitlines()
    assert lines[0] == "```text"
    assert lines[-1] == "```"
    assert max(map(len, lines)) <= 130
    assert f"--suite {blocks.BLOCKS[name][0]}, 2026-11-22: Example CPU" in lines[-2]


def test_a_missing_suite_is_one_clear_error() -> None:
    with pytest.raises(SettingsError, match="drawn from suite 'peers', which the report does not have"):
        blocks.block(report(suites=("cost",)), "peers")
    with pytest.raises(SettingsError, match="expected one of cost"):
        blocks.block(report(suites=("cost",)), "costs")


def test_markdown_is_rewritten_between_the_markers_and_checked(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# A\n\n<!-- bench:cost -->\nold\n<!-- /bench -->\nB\n<!-- bench:mpc -->\n<!-- /bench -->\n")
    arguments = [str(saved), "--markdown", str(readme)]
    assert command.run([*arguments, "--check"]) == 1
    assert "not what the report says: cost, mpc" in capsys.readouterr().out
    assert "old" in readme.read_text()
    assert command.run(arguments) == 0
    assert command.run([*arguments, "--check", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["markdown"] == [{"file": str(readme), "blocks": ["cost", "mpc"], "differ": []}]
    text = readme.read_text()
    assert text.startswith("# A\n\n<!-- bench:cost -->\n```text\n")
    assert "```\n<!-- /bench -->\nB\n<!-- bench:mpc -->\n```text\n" in text
    readme.write_text(text.replace("1.0 x", "0.9 x", 1))
    assert command.run([*arguments, "--check"]) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing\n", "expected blocks"),
        ("<!-- bench:cost -->\n", "takes a `<!-- /bench -->`"),
        ("<!-- bench:cost -->\n<!-- bench:mpc -->\n<!-- /bench -->\n", "takes a `<!-- /bench -->`"),
        ("<!-- bench:other -->\n<!-- /bench -->\n", "expected one of"),
    ],
)
def test_markers_that_do_not_fit_are_refused(found: dict[str, Any], tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.md"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said):
        markdown.held_against(found, path)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ("{", "cannot be read as a report"),
        ('{"format": "other"}', "expected a report of"),
        ('{"format": "secure-infer-bench/1"}', "expected suites by name, got none"),
        ('{"format": "secure-infer-bench/1", "suites": {"cost": {"rows": [{}]}}}', "expected rows with an id"),
        (
            '{"format": "secure-infer-bench/1", "suites": {"cost": {"rows": [{"id": "a", "figures": {"x": {}}}]}}}',
            "suite cost, row a: expected figures",
        ),
        (
            '{"format": "secure-infer-bench/1", "suites": {"cost": {"rows": [{"id": "a"}, {"id": "a"}]}}}',
            "expected ids that differ",
        ),
        ('{"format": "secure-infer-bench/1", "suites": {"cost": {"rows": 3}}}', "expected a list of rows"),
    ],
)
def test_a_file_that_is_no_report_is_one_clear_error(tmp_path: Path, held: str, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(held)
    with pytest.raises(SettingsError, match=said):
        command.run([str(path), "--html", str(tmp_path / "a.html")])
    assert not (tmp_path / "a.html").exists()


def test_without_matplotlib_the_extra_is_named(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"pip install 'secure-infer\[bench\]'"):
        command.run([str(saved), "--html", str(tmp_path / "a.html")])


def test_options_that_do_nothing_are_refused(saved: Path) -> None:
    with pytest.raises(SettingsError, match="nothing to draw"):
        command.run([str(saved)])
    with pytest.raises(SettingsError, match="--check takes --markdown"):
        command.run([str(saved), "--check", "--html", "a.html"])
