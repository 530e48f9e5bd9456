"""First, rule-based de-identification of clinical text, before it is embedded.

Removed: dates that hold a day or a month, phone numbers, e-mail addresses, URLs, IP addresses, and identifiers (social
security, NHS and record numbers, labelled numbers such as "MRN 00482913", long digit strings). Ages over 89 are given
as 90, read as "90 or older" (45 CFR 164.514(b)(2), the HIPAA safe harbour). **Names and addresses are not removed.**

The rules prefer precision: a dose, score, vertebra or code ("5 mg", "120/80", "C5-C6", "T12", "Z12.31") stays.
What is removed leaves nothing behind: any placeholder word moves the embedding further than a gap does.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from secure_infer.errors import InvalidInput


@dataclass(frozen=True)
class Removal:
    """A span [start, end) of the original text, in characters. `text` is what stood there; it is kept out of `repr`."""

    kind: str
    start: int
    end: int
    text: str = field(repr=False)


@dataclass(frozen=True)
class Deidentified:
    """The text that may be embedded, and what was taken out, in order of position."""

    text: str = field(repr=False)
    removed: tuple[Removal, ...] = ()


@dataclass(frozen=True)
class _Rule:
    kind: str
    pattern: re.Pattern[str]
    accept: Callable[[re.Match[str]], bool] = lambda match: True
    replacement: str = ""


def _rule(
    kind: str, pattern: str, accept: Callable[[re.Match[str]], bool] = lambda match: True, replacement: str = ""
) -> _Rule:
    return _Rule(kind, re.compile(pattern, re.IGNORECASE | re.VERBOSE), accept, replacement)


def _is_date(match: re.Match[str]) -> bool:
    first, second, year = (match[name] for name in ("first", "second", "year"))
    if not (1 <= int(first) <= 31 and 1 <= int(second) <= 31 and min(int(first), int(second)) <= 12):
        return False
    # "1-2-20" and "1.2.20" are as well a dosing scheme or a section number; written in full they are dates.
    return len(year) == 4 or match["separator"] == "/" or (len(first) == 2 and len(second) == 2)


def _is_iso_date(match: re.Match[str]) -> bool:
    return 1 <= int(match["month"]) <= 12 and 1 <= int(match["day"]) <= 31


def _is_named_date(match: re.Match[str]) -> bool:
    name = match["month"]
    if not 1 <= int(match["day"]) <= 31:
        return False
    # "may 5" and "dec 2" are words more often than months; "May 5" and "Dec 2" are not.
    return match["year"] is not None or not name.islower() or (len(name) > 3 and name not in ("sept", "march"))


def _digits(low: int, high: int) -> Callable[[re.Match[str]], bool]:
    return lambda match: low <= sum(character.isdigit() for character in match[0]) <= high


def _is_nhs(match: re.Match[str]) -> bool:
    """The modulus-11 check of the NHS Data Dictionary, so that any other ten digits in groups stay."""
    digits = [int(character) for character in match[0] if character.isdigit()]
    return (
        11 - sum(weight * digit for weight, digit in zip(range(10, 1, -1), digits, strict=False)) % 11
    ) % 11 == digits[9]


def _is_address(match: re.Match[str]) -> bool:
    return all(int(part) <= 255 for part in match[0].split("."))


def _is_long_number(match: re.Match[str]) -> bool:
    return not match[0].endswith("0000")  # a count, such as 5000000000 CFU


_UNIT = (
    r"(?! \s{0,3} (?: (?: units? | iu | u | mg | mcg | µg | g | kg | ml | l | mmol | meq | cm | mm | tab(?:let)?s? |"
    r" drops? ) \b | % ) )"
)
_MONTH = (
    r"(?P<month> jan(?:uary)? | feb(?:ruary)? | mar(?:ch)? | apr(?:il)? | may | june? | july? | aug(?:ust)? |"
    r" sept?(?:ember)? | oct(?:ober)? | nov(?:ember)? | dec(?:ember)? ) \b \.?"
)
_BIRTH = r"(?: \b (?: d\.?o\.?b\.? | date\ of\ birth | born(?:\ on)? ) \s{0,3} [:=]? \s{0,3} )?"
_TIME = r"(?: [t\ ] \d{1,2}:\d{2} (?: :\d{2} (?:\.\d{1,6})? )? (?: z | [+-]\d{2}:?\d{2} )? \b )?"
_YEAR = r"(?P<year> (?:19|20)\d{2} )"
_LABEL = (
    r"\b (?: mrn | ssn | medical\ record | social\ security | nhs | hospital | patient | insurance | policy | member |"
    r" account | acct | medicare | medicaid | health\ plan | subscriber | licen[cs]e | passport | accession | case |"
    r" encounter | visit )"
)
_NUMBER_WORD = r"(?: \s{0,3} (?: number | num\b\.? | no\b\.? | nr\b\.? | id\b | identifier | \# ) )"
_IS = r"\s{0,3} (?: is\s | [:=\#] ){0,2} \s{0,3}"
_OVER_89 = r"(?: 9[1-9] | 1[0-3]\d )"
_VALUE = r"(?= [a-z/-]{0,6} \d{2} ) (?= (?: [a-z/-]{0,6} \d ){4} ) [a-z0-9] [a-z0-9/-]{3,30} \b"


@cache
def _rules() -> tuple[_Rule, ...]:
    """In order: an earlier rule wins where two overlap. Compiled on first use."""
    return (
        _rule("url", r"\b (?: https?:// | www\. ) [^\s<>\"']{1,2000} (?<! [.,;:!?)] )"),
        _rule("email", r"(?<! [\w.+-] ) [\w.+-]{1,64} @ [\w-]{1,63} (?: \. [\w-]{1,63} ){1,8}"),
        _rule(
            "date",
            rf"{_BIRTH} (?<! [\w/.-] ) (?P<first>\d{{1,2}}) (?P<separator>[/.-]) (?P<second>\d{{1,2}}) (?P=separator)"
            rf" (?P<year> (?:19|20)\d{{2}} | \d{{2}} ) (?! [\w/-] | \.\d ) {_UNIT} {_TIME}",
            _is_date,
        ),
        _rule(
            "date",
            rf"{_BIRTH} (?<! [\w/.-] ) {_YEAR} (?P<separator>[/.-]) (?P<month>\d{{1,2}}) (?P=separator)"
            rf" (?P<day>\d{{1,2}})"
            rf" (?: (?! [\w/-] | \.\d ) | (?= t\d ) ) {_TIME}",
            _is_iso_date,
        ),
        _rule(
            "date",
            rf"{_BIRTH} (?<! [\w/.-] ) (?P<day>\d{{1,2}}) (?: st | nd | rd | th )? (?: \s{{1,3}} of )? [\s-]{{0,3}}"
            rf" {_MONTH} (?: ,? [\s-]{{0,3}} {_YEAR} \b )?",
            _is_named_date,
        ),
        _rule(
            "date",
            rf"{_BIRTH} \b {_MONTH} [\s-]{{1,3}} (?P<day>\d{{1,2}}) (?: st | nd | rd | th )? (?! [/.-] \d | \w )"
            rf" {_UNIT} (?: ,? \s{{0,3}} {_YEAR} \b )?",
            _is_named_date,
        ),
        _rule("date", rf"{_BIRTH} \b {_MONTH} ,? [\s-]{{1,3}} {_YEAR} \b"),
        _rule("identifier", rf"{_LABEL} {_NUMBER_WORD}{{1,2}} {_IS} {_VALUE}"),
        _rule("identifier", rf"\b (?: mrn | ssn ) {_IS} {_VALUE}"),
        _rule("identifier", r"(?<! [\w.-] ) (?! 000 | 666 | 9 ) \d{3} - \d{2} - \d{4} (?! [\w-] )"),
        _rule("identifier", r"(?<! [\w.-] ) \d{3} [ -] \d{3} [ -] \d{4} (?! [\w-] )", _is_nhs),
        _rule("identifier", r"\b [0-9a-f]{8} (?: - [0-9a-f]{4} ){3} - [0-9a-f]{12} \b"),
        _rule(
            "phone",
            r"\b (?: tel(?:ephone)? | (?:cell\ )?phone | mobile | fax | pager | call ) \b \.? \s{0,3}"
            r" (?: number | no\.? | \# | at | on )? \s{0,3} :? \s{0,3} [+(]{0,2} \d [\d ().-]{5,22} \d (?! \w )",
            _digits(7, 15),
        ),
        _rule("phone", r"(?<! [\w+] ) \+ \d{1,3} (?: [ .-]? \(? \d{1,4} \)? ){2,6} (?! \w )", _digits(9, 15)),
        _rule(
            "phone", r"(?<! [\w.-] ) (?: 1 [ .-] )? (?: \( \d{3} \) [ ]? | \d{3} [.-] ) \d{3} [.-] \d{4} (?! [\w-] )"
        ),
        _rule(
            "phone",
            r"(?<! [\w.-] ) (?: \( 0\d{2,4} \) | 0\d{2,4} ) [ -] \d{3,4} [ -]? \d{3,4} (?! [\w-] )",
            _digits(10, 11),
        ),
        _rule("ip address", r"(?<! [\w.-] ) \d{1,3} (?: \. \d{1,3} ){3} (?! [\w-] | \.\d )", _is_address),
        _rule("identifier", rf"(?<! [\w.,-] ) \d{{9,30}} (?! [\w-] | [.,]\d ) {_UNIT}", _is_long_number),
        _rule(
            "age",
            rf"(?<! [\w.,/-] ) (?P<target> {_OVER_89} ) [\s-]{{0,3}} (?: years? | yrs? | y ) [\s./-]{{0,3}}"
            r" (?: old | o \b | of\ age )",
            replacement="90",
        ),
        _rule(
            "age",
            rf"\b aged? \s{{1,3}} (?P<target> {_OVER_89} ) (?! [\w/-] | [.,]\d |"
            r" \s{0,3} (?: days? | weeks? | months? | hours? | minutes? ) )",
            replacement="90",
        ),
    )


def deidentify(text: str) -> Deidentified:
    """`text` without what the rules above find; text in which they find nothing comes back unchanged.

    The result may be empty when the text held nothing else. Every repetition in a rule is bounded, so the time taken is
    linear in the length of the text. Raises InvalidInput for what is not a str.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"text: expected str, got {type(text).__name__}")
    found: list[tuple[Removal, str]] = []
    for rule in _rules():
        for match in rule.pattern.finditer(text):
            start, end = match.span("target" if "target" in rule.pattern.groupindex else 0)
            if rule.accept(match):
                found.append((Removal(rule.kind, start, end, text[start:end]), rule.replacement))
    if not found:
        return Deidentified(text)
    kept: list[Removal] = []
    pieces: list[str] = []
    position = 0
    for removal, replacement in _without_overlaps(found):
        pieces += [text[position : removal.start], replacement]
        kept.append(removal)
        position = removal.end
        if not replacement and text[position : position + 1] in (" ", ".", ",", ";", ":"):
            pieces[-2] = pieces[-2].rstrip(" ")  # no doubled space, and none left before punctuation
    return Deidentified("".join([*pieces, text[position:]]).strip().lstrip(",;: "), tuple(kept))


def _without_overlaps(found: list[tuple[Removal, str]]) -> list[tuple[Removal, str]]:
    """By position; of two that overlap, the one whose rule comes first."""
    taken: list[tuple[Removal, str]] = []
    ends: list[int] = []
    starts: list[int] = []
    for item in found:
        index = bisect(starts, item[0].start)
        clear_left = index == 0 or ends[index - 1] <= item[0].start
        if clear_left and (index == len(starts) or item[0].end <= starts[index]):
            starts.insert(index, item[0].start)
            ends.insert(index, item[0].end)
            taken.insert(index, item)
    return taken
