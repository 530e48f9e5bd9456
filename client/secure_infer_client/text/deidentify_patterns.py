"""What a pattern alone can tell: dates, contacts, identifiers, network addresses and ages over 89."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Rule:
    """A kind, its pattern, a check of what matched, and what is left in its place."""

    kind: str
    pattern: re.Pattern[str]
    accept: Callable[[re.Match[str]], bool] = lambda match: True
    replacement: str = ""


def _rule(
    kind: str, pattern: str, accept: Callable[[re.Match[str]], bool] = lambda match: True, replacement: str = ""
) -> Rule:
    return Rule(kind, re.compile(pattern, re.IGNORECASE | re.VERBOSE), accept, replacement)


def _is_date(match: re.Match[str]) -> bool:
    first, second, year = (match[name] for name in ("first", "second", "year"))
    if not (1 <= int(first) <= 31 and 1 <= int(second) <= 31 and min(int(first), int(second)) <= 12):
        return False
    # "1-2-20" and "1.2.20" are as well a dosing scheme or a section number; written in full they are dates.
    return len(year) == 4 or match["separator"] == "/" or (len(first) == 2 and len(second) == 2)


def _is_day_and_month(match: re.Match[str]) -> bool:
    first, second = int(match["first"]), int(match["second"])
    return 1 <= min(first, second) <= 12 and 1 <= max(first, second) <= 31


def _is_iso_date(match: re.Match[str]) -> bool:
    return 1 <= int(match["month"]) <= 12 and 1 <= int(match["day"]) <= 31


def _is_named_date(match: re.Match[str]) -> bool:
    name = match["month"]
    if not 1 <= int(match["day"]) <= 31:
        return False
    # "may 5" and "dec 2" are words more often than months; "May 5" and "Dec 2" are not.
    if "short" in match.re.groupindex and match["short"] is not None and not match["short"][0].isspace():
        return True
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
# A year in two digits: after a hyphen or an apostrophe, or where neither a quantity nor a time follows ("12 Mar 24").
_NAMED_YEAR = (
    r"(?: ,? [\s/.-]{0,3} (?P<year> (?:19|20)\d{2} ) \b | (?P<short> [/-]\d{2} | \s?['’]\d{2} | \s\d{2} ) (?! [\w/-] | [.,:]\d |"
    r" \s{0,3} (?: units? | iu | u | m?c?g | kg | m?l | mmol | meq | [cm]m | tab(?:let)?s? | drops? | h(?:ou)?rs? | days? |"
    r" weeks? | months? | y(?:ea)?rs? | min | times | % | x ) ) )?"
)
_WEEKDAY = (
    r"(?: \b (?: mon | tue(?:s)? | wed(?:nes)? | thu(?:rs)? | fri | sat(?:ur)? | sun ) (?:day)? \b [,.]? \s{1,3} )?"
)
_EVENT = (
    r"(?: seen | admitted | discharged | dated? | visited | visit | reviewed | presented | surgery | appointment | appt |"
    r" follow-?\s?up | fu | started | operated | referred | examined | born | until | since )"
)
_LABEL = (
    r"\b (?: mrn | ssn | medical\ record | social\ security | nhs | hospital | patient | insurance | policy | member |"
    r" account | acct | chart | record | specimen | claim | driver'?s\ licen[cs]e | health\ card |"
    r" medicare | medicaid | health\ plan | subscriber | licen[cs]e | passport | accession | case |"
    r" encounter | visit )"
)
_NUMBER_WORD = r"(?: \s{0,3} (?: number | num\b\.? | no\b\.? | nr\b\.? | id\b | identifier | \# ) )"
_IS = r"\s{0,3} (?: is\s | [:=\#] ){0,2} \s{0,3}"
_OVER_89 = r"(?: 9[1-9] | 1[0-3]\d )"
_VALUE = r"(?= [a-z/-]{0,6} \d{2} ) (?= (?: [a-z/-]{0,6} \d ){4} ) [a-z0-9] [a-z0-9/-]{3,30} \b"


@cache
def rules() -> tuple[Rule, ...]:
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
            rf"{_BIRTH} {_WEEKDAY} (?<! [\w/.-] ) (?P<day>\d{{1,2}}) (?: st | nd | rd | th )? (?: \s{{1,3}} of )?"
            rf" (?: [\s-]{{0,3}} | [/.] ) {_MONTH} {_NAMED_YEAR}",
            _is_named_date,
        ),
        _rule(
            "date",
            rf"{_BIRTH} {_WEEKDAY} \b {_MONTH} (?: [\s-]{{1,3}} | \ the\  ) (?P<day>\d{{1,2}}) (?: st | nd | rd | th )?"
            rf" (?! [/.-] \d | \w ) {_UNIT} (?: ,? \s{{0,3}} (?P<year> (?:19|20)\d{{2}} | ['’]\d{{2}} ) \b )?",
            _is_named_date,
        ),
        _rule("date", rf"{_BIRTH} \b {_MONTH} (?: ,? [\s-]{{1,3}} (?: of\s )? | / ) {_YEAR} \b"),
        _rule("date", rf"{_BIRTH} \b {_MONTH} \s? ['’]\d{{2}} \b"),
        _rule("date", r"(?<! [\w/.,-] ) (?: 0?[1-9] | 1[0-2] ) / (?:19|20)\d{2} (?! [\w/-] | [.,]\d )"),
        _rule(
            "date",
            r"(?<! [\w/.,-] ) (?:19|20)\d{2} (?: 0[1-9] | 1[0-2] ) (?: 0[1-9] | [12]\d | 3[01] ) (?! [\w/-] | [.,]\d )",
        ),
        # Day and month alone are a score ("4/5") unless the sentence says that something happened then.
        _rule(
            "date",
            rf"\b {_EVENT} (?: :? \s{{1,2}} (?: on\s )? ) (?P<target> (?P<first>\d{{1,2}}) / (?P<second>\d{{1,2}}) )"
            rf" (?! [\w/-] | [.,]\d ) {_UNIT}",
            _is_day_and_month,
        ),
        _rule(
            "phone",
            r"\b (?: tel(?:ephone)? | (?:cell\ )?phone | mobile | fax | pager | call ) \b \.? \s{0,3}"
            r" (?: number | no\.? | \# | at | on )? \s{0,3} :? \s{0,3} [+(]{0,2} \d (?: [\d ()-] | \.(?!\s) ){5,22} \d (?! \w )",
            _digits(7, 15),
        ),
        _rule("phone", r"(?<! [\w+] ) \+ \d{1,3} (?: [ .-]? \(? \d{1,4} \)? ){2,6} (?! \w )", _digits(9, 15)),
        _rule("identifier", rf"{_LABEL} {_NUMBER_WORD}{{1,2}} {_IS} {_VALUE}"),
        _rule("identifier", rf"\b (?: mrn | ssn | npi | dea ) {_IS} {_VALUE}"),
        # A Medicare beneficiary's and a British national insurance number, by their shape.
        _rule("identifier", r"\b (?-i: [1-9][A-Z][A-Z\d]\d -? [A-Z][A-Z\d]\d -? [A-Z]{2}\d{2} ) \b"),
        _rule("identifier", r"\b (?-i: [A-CEGHJ-PR-TW-Z]{2} \ ? \d{2} \ ? \d{2} \ ? \d{2} \ ? [A-D] ) \b"),
        _rule("identifier", r"(?<! [\w.-] ) (?! 000 | 666 | 9 ) \d{3} - \d{2} - \d{4} (?! [\w-] )"),
        _rule("identifier", r"(?<! [\w.-] ) \d{3} [ -] \d{3} [ -] \d{4} (?! [\w-] )", _is_nhs),
        _rule("identifier", r"\b [0-9a-f]{8} (?: - [0-9a-f]{4} ){3} - [0-9a-f]{12} \b"),
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


def find(text: str) -> Iterator[tuple[str, int, int, str]]:
    """(kind, start, end, replacement) of every accepted match, rule by rule; they may overlap."""
    for rule in rules():
        for match in rule.pattern.finditer(text):
            if rule.accept(match):
                start, end = match.span("target" if "target" in rule.pattern.groupindex else 0)
                yield rule.kind, start, end, rule.replacement
