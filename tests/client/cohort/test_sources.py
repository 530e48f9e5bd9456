"""Input files: every row comes out once, as itself or as rejected with a reason, from any place on."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_infer.errors import SettingsError
from secure_infer_client.cohort import lines, tables
from secure_infer_client.cohort.lines import Csv, JsonLines
from secure_infer_client.cohort.rows import LONGEST_TEXT, Columns, Place, Rejected, Row, Source
from secure_infer_client.cohort.tables import Parquet

TEXTS = Columns(text="note", id="visit")
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12)


def all_of(source: Source, place: Place | None = None) -> list[Row | Rejected]:
    return [one for one, _ in source.read(place or Place())]


def reasons(source: Source) -> dict[int, str]:
    return {one.number: one.reason for one in all_of(source) if isinstance(one, Rejected)}


def given_texts(source: Source) -> list[tuple[str | None, object]]:
    return [(one.id, one.given) for one in all_of(source) if isinstance(one, Row)]


@settings(max_examples=60)
@given(rows=st.lists(st.tuples(WORDS, WORDS, WORDS), max_size=8), delimiter=st.sampled_from(lines.DELIMITERS))
def test_csv_as_the_csv_module_reads_it_from_any_place(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], delimiter: str
) -> None:
    path = tmp_path_factory.mktemp("csv") / "in.csv"
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows([("visit", "note", "site"), *rows])
    path.write_bytes(text.getvalue().encode("utf-8-sig"))
    source = Csv(path, TEXTS, "utf-8")
    found = list(source.read(Place()))
    expected = [row for row in rows if row[0].strip() and row[1].strip()]
    assert [(one.id, one.given) for one, _ in found if isinstance(one, Row)] == [(row[0], row[1]) for row in expected]
    assert [one.number for one, _ in found] == list(range(1, len(rows) + 1))
    for index, (_, place) in enumerate(found):
        assert list(source.read(place)) == found[index + 1 :]
    assert not found or found[-1][1].at == source.whole


def test_csv_rows_that_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(
        b"visit,note\n"
        b"1,acute\n"
        b"2\n"
        b"3,a,b\n"
        b"4,\n"
        b",text\n"
        b"6,caf\xe9\n"
        b"\n"
        b'7,"two\nlines"\n'
        b'8,"a" b\n' + b"9," + b"x" * (LONGEST_TEXT + 2) + b"\n" + b"10," + b"y" * lines.LONGEST_LINE + b"\n"
        b"11,end\n"
        b'12,"never closed\n13,swallowed\n'
    )
    source = Csv(path, TEXTS, "utf-8")
    assert given_texts(source) == [("1", "acute"), ("7", "two\nlines"), ("11", "end")]
    found = reasons(source)
    assert found[2] == "expected 2 fields, got 1"
    assert found[3] == "expected 2 fields, got 3"
    assert found[4] == "note: empty"
    assert found[5] == "visit: empty"
    assert "encoding" in found[6]
    assert "not CSV" in found[8]
    assert "not CSV (field larger" in found[9]
    assert "bytes" in found[10]
    assert "unexpected end" in found[12]
    last = [one for one in all_of(source) if isinstance(one, Rejected)][-1]
    assert (last.line, last.lines) == (15, 2)
    assert "caf" not in "".join(one.to_json() for one in all_of(source) if isinstance(one, Rejected))
    assert given_texts(Csv(path, TEXTS, "latin-1"))[1] == ("6", "caf\xe9")


def test_csv_of_one_column_and_by_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("note\na\n\nb\n")
    assert given_texts(Csv(path, Columns(text="note"), "utf-8")) == [(None, "a"), (None, "b")]
    assert reasons(Csv(path, Columns(text="note"), "utf-8")) == {2: "note: empty"}
    path.write_text("visit^note\n1^a,b;c\n")
    assert given_texts(Csv(path, TEXTS, "utf-8", "^")) == [("1", "a,b;c")]


@pytest.mark.parametrize(
    ("content", "encoding", "delimiter", "message"),
    [
        (b"a,b\n", "utf-8", None, "no column 'visit'; it has a, b"),
        (b"", "utf-8", None, "no column 'visit'"),
        (b"note,visit,note\n", "utf-8", None, "2 columns 'note'"),
        ("visit,note\n".encode("utf-16"), "utf-8", None, "UTF-16"),
        (b"visit,note\n", "utf-16", None, "not written as ASCII"),
        (b"visit,note\n", "klingon", None, "no encoding"),
        (b"visit,note\n", "utf-8", '"', "--delimiter"),
    ],
)
def test_csv_that_is_of_no_use(tmp_path: Path, content: bytes, encoding: str, delimiter: str, message: str) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        Csv(tmp_path / "in.csv", TEXTS, encoding, delimiter)


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    rows = [
        json.dumps({"visit": 1, "note": "one\u2028two"}, ensure_ascii=False),
        "",
        '{"visit": 2, "note": null}',
        '{"visit": 3}',
        '{"visit": 4, "note": 4}',
        "[1]",
        "{",
        '{"visit": 7, "note": "\\ud800"}',
        '{"visit": null, "note": "a"}',
        '{"visit": "9", "note": "last"}',
    ]
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join(rows).encode())
    source = JsonLines(path, TEXTS, "utf-8")
    assert given_texts(source) == [("1", "one\u2028two"), ("9", "last")]
    assert list(reasons(source)) == [2, 3, 4, 5, 6, 7, 8]
    found = list(source.read(Place()))
    for index, (_, place) in enumerate(found):
        assert list(source.read(place)) == found[index + 1 :]
    assert found[-1][1].at == source.whole


def test_features(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('a,b,x\n1,2.5,"[1, 2]"\n1,,[]\n1,two,"[""3"", true]"\n1,1e999,nonsense\n')
    found = all_of(Csv(path, Columns(features=("b", "a")), "utf-8"))
    assert found[0] == Row(1, None, [2.5, 1.0])
    assert [one.reason for one in found[1:3] if isinstance(one, Rejected)] == ["b: expected a number"] * 2
    found = all_of(Csv(path, Columns(embedding="x"), "utf-8"))
    assert found[0] == Row(1, None, [1.0, 2.0])
    assert [one.reason for one in found[1:] if isinstance(one, Rejected)] == [
        "x: expected a list of numbers",
        "x: expected a number, got bool",
        "x: expected a list of numbers",
    ]
    with pytest.raises(SettingsError, match="one of --text-column"):
        Columns(text="a", embedding="x")


@pytest.mark.parametrize("dictionary", [False, True])
def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dictionary: bool) -> None:
    monkeypatch.setattr(tables, "BATCH", 3)
    path = tmp_path / "in.parquet"
    notes = pa.array([b"a", None, b"caf\xe9", b"", *(b"n%d" % i for i in range(20))], pa.binary())
    notes = pa.Array.from_buffers(pa.string(), len(notes), notes.buffers())  # as careless writers leave them
    if dictionary:
        notes = pa.array(["a", None, "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "", *["n"] * 20])
        notes = notes.dictionary_encode()
    parquet.write_table(pa.table({"note": notes, "visit": range(24)}), path, row_group_size=7)
    source = Parquet(path, TEXTS)
    assert (source.whole, source.unit) == (24, "rows")
    found = list(source.read(Place()))
    assert [one.number for one, _ in found] == list(range(1, 25))
    assert list(reasons(source)) == ([2, 4] if dictionary else [2, 3, 4])
    for index, (_, place) in enumerate(found):
        assert list(source.read(place)) == found[index + 1 :]


def test_parquet_that_is_of_no_use(tmp_path: Path) -> None:
    (tmp_path / "in.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(SettingsError, match="cannot be read as parquet"):
        Parquet(tmp_path / "in.parquet", TEXTS)
    parquet.write_table(pa.table({"note": ["a"]}), tmp_path / "in.parquet")
    with pytest.raises(SettingsError, match="no column 'visit'"):
        Parquet(tmp_path / "in.parquet", TEXTS)
