"""De-identification: what it must find, what it must leave alone, and that it costs linear time."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secure_infer_client import samples
from secure_infer_client.text.deidentify import deidentify

from secure_infer.errors import InvalidInput

FOUND = [
    ("Seen on 03/12/2024 for chest pain.", "date", "Seen on for chest pain."),
    ("admitted 3.12.2024, stable", "date", "admitted, stable"),
    ("admitted 12-31-1999 with sepsis", "date", "admitted with sepsis"),
    ("visit 03/04/24 at clinic", "date", "visit at clinic"),
    ("at 2024-03-01T10:22:00Z fell", "date", "at fell"),
    ("on March 3rd, 2021 fell", "date", "on fell"),
    ("stroke in march 2021", "date", "stroke in"),
    ("since 12 Mar asthma", "date", "since asthma"),
    ("DOB: 1 Jan 1950, asthma", "date", "asthma"),
    ("born on 12/11/50, asthma", "date", "asthma"),
    ("asthma, call 555-123-4567 if worse", "phone", "asthma, if worse"),
    ("asthma. Tel: +44 20 7946 0958", "phone", "asthma."),
    ("(212) 555-0187 asthma", "phone", "asthma"),
    ("asthma 0161 496 0000", "phone", "asthma"),
    ("asthma, john.doe@example.org", "email", "asthma,"),
    ("asthma, see https://example.org/a?b=1.", "url", "asthma, see."),
    ("MRN: 00482913, asthma", "identifier", "asthma"),
    ("Patient ID #A-100234 asthma", "identifier", "asthma"),
    ("insurance no. AB1234567 asthma", "identifier", "asthma"),
    ("asthma 123-45-6789", "identifier", "asthma"),
    ("asthma 943 476 5919", "identifier", "asthma"),
    ("asthma 123456789", "identifier", "asthma"),
    ("asthma from 192.168.1.10", "ip address", "asthma from"),
    ("a 93-year-old woman with asthma", "age", "a 90-year-old woman with asthma"),
    ("101 yo male", "age", "90 yo male"),
    ("asthma, aged 97", "age", "asthma, aged 90"),
]

KEPT = """5 mg|120/80|BP 120/80/60|type 2 diabetes|C5-C6 disc herniation|factor VIII deficiency|T12 fracture
stage 3|Z12.31
S72.001A|insulin 10-12-10 units|may 5 mg be given|dec 2|March fracture|march hemoglobinuria
strength 5/5|GCS 15 (4/5/6)
pH 7.35-7.45|T cell count 1200|CAS 50-78-2|46,XX|CA 19-9|CA-125|aged 90 days|90 mg|1-0-1|10-20-30 mg|5000000000 CFU
22q11.2 deletion|L4-L5|case 3|visit number 3|initial encounter|T1N0M0|HLA-B27|SpO2 95%|INR 2.5|platelets 150,000
age 65|HbA1c 7.2%|in 2019|hepatitis B|COVID-19|1.5 x 10-9|NDC 0777-3105-02|patient no longer 1234|CD4 350|95% burn
99 percentile|grade 2-3|24-hour urine|vitamin B12|G6PD|Rh(D)|46,XY,t(9;22)(q34;q11)|90 days old|943 476 5918
section 1.2.3|body mass index 40.0-44.9|20-20-20 rule|call if worse|phone ring anxiety|1 in 100000000"""


@pytest.mark.parametrize(("text", "kind", "left"), FOUND)
def test_finds(text: str, kind: str, left: str) -> None:
    result = deidentify(text)
    assert [removal.kind for removal in result.removed] == [kind]
    assert result.text == left
    removal = result.removed[0]
    assert text[removal.start : removal.end] == removal.text


@pytest.mark.parametrize("text", KEPT.replace("\n", "|").split("|"))
def test_leaves_alone(text: str) -> None:
    result = deidentify(text)
    assert result.text == text
    assert result.removed == ()


def test_several_in_order() -> None:
    result = deidentify("01/02/2024 MRN 12345678: 95-year-old, a@b.org")
    assert [removal.kind for removal in result.removed] == ["date", "identifier", "age", "email"]
    assert result.text == "90-year-old,"


def test_a_text_of_nothing_else_comes_back_empty() -> None:
    assert deidentify(" 01/02/2024 ").text == ""


def test_only_text_is_accepted() -> None:
    with pytest.raises(InvalidInput, match="expected str, got bytes"):
        deidentify(b"01/02/2024")  # type: ignore[arg-type]


def test_what_was_removed_is_not_in_the_representation() -> None:
    assert "2024" not in repr(deidentify("01/02/2024 asthma"))
    assert "asthma" not in repr(deidentify("01/02/2024 asthma"))


def test_packaged_texts_come_out_unchanged() -> None:
    changed = [sample.text for sample in samples.load() if deidentify(sample.text).text != sample.text]
    assert len(changed) == 0


@given(st.text(max_size=300))
def test_any_text_is_accepted_and_removals_are_spans_of_it(text: str) -> None:
    result = deidentify(text)
    position = 0
    for removal in result.removed:
        assert position <= removal.start < removal.end <= len(text)
        assert text[removal.start : removal.end] == removal.text
        position = removal.end
    assert result.removed or result.text == text


@given(
    st.sampled_from(["heart failure", "type 2 diabetes", "C5-C6 disc", "5 mg daily"]),
    st.dates(min_value=datetime.date(1901, 1, 1), max_value=datetime.date(2099, 12, 31)),
    st.sampled_from(["%d/%m/%Y", "%m/%d/%y", "%Y-%m-%d", "%d.%m.%Y", "%d %B %Y", "%b %d, %Y", "%B %Y"]),
)
def test_every_way_to_write_a_date_is_found(term: str, date: datetime.date, form: str) -> None:
    written = format(date, form)
    result = deidentify(f"{term} since {written}")
    assert result.text == f"{term} since"
    assert [removal.text for removal in result.removed] == [written]


@pytest.mark.parametrize("unit", ["1", "1-", "1 ", "a", "a.", "12/", "jan ", "jan-", "mrn a", "born on ", "call ", " "])
def test_hostile_text_takes_linear_time(unit: str) -> None:
    deidentify(unit * (100_000 // len(unit)))  # a quadratic rule would run into the test's time limit
