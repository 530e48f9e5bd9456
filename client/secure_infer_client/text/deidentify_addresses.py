"""Postal addresses: a street with its number, and what follows it (flat, town, state, postcode); PO boxes; postcodes.

Capitals are required where a word has to be a place; numbers and units of medicine never satisfy a rule by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from secure_infer_client.text.deidentify_vocabulary import cue

Span = tuple[int, int]

_STREETS = (
    "Street|St|Road|Rd|Avenue|Ave|Av|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Crescent|Cres|Close|Place|Pl|Terrace|Ter|Way|"
    "Square|Sq|Gardens|Gdns|Grove|Parkway|Pkwy|Highway|Hwy|Circle|Cir|Trail|Trl|Mews|Row|Walk|Hill|Park|Parade|Green|Rise|"
    "View|Quay|Wharf|Alley|Pike|Turnpike|Loop|Plaza|Broadway|Esplanade|Vale|Point|Ridge|Crossing|Run"
)
_STATES = (
    r"(?:A[BCKLRZ]|BC|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ABDEINOST]|N[BCDEHJLMSTVY]|NSW|O[HKNR]|P[AER]|QC|QLD|RI|S[CDK]|"
    r"T[NX]|TAS|UT|V[AT]|VIC|W[AIVY])(?![\w])\.?"
)
_STATE_NAMES = (
    r"(?:Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii|Idaho|Illinois|"
    r"Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan|Minnesota|Mississippi|Missouri|Montana|"
    r"Nebraska|Nevada|New\ (?:Hampshire|Jersey|Mexico|York)|(?:North|South)\ (?:Carolina|Dakota)|Ohio|Oklahoma|Oregon|"
    r"Pennsylvania|Rhode\ Island|Tennessee|Texas|Utah|Vermont|(?:West\ )?Virginia|Washington|Wisconsin|Wyoming)"
)
_PROPER = r"[A-Z][^\W\d_]{0,24}(?:['’.-][^\W\d_]{1,24}){0,3}\.?"
_POSTCODE = r"[A-Z]{1,2}\d[A-Z\d]?\ ?\d[ABD-HJLNP-UW-Z]{2}(?![\w])"
_CANADIAN = r"[ABCEGHJ-NPRSTVXY]\d[A-Z]\ \d[A-Z]\d(?![\w])"
_ZIP = r"\d{5}(?:-\d{4})?(?![\w-])"
_UNIT = (
    r"(?:,?\ {0,2}(?:[Aa]pt|[Aa]partment|APT|[Ss]uite|[Ss]te|[Uu]nit|[Ff]lat|[Ff]loor|[Rr]oom|[Rr]m|\#)\.?\ {0,2}\#?"
    r"[A-Za-z]?-?\d{0,4}[A-Za-z]?(?![\w]))"
)
_LEAD = r"(?:(?:[Ff]lat|[Uu]nit|[Aa]pt|[Aa]partment|[Ss]uite)\.?\ \d{0,4}[A-Za-z]?,?\ )?"
# No full stop but in "St.": "12 Mill St, Springfield. Asthma" ends with the town.
_PLACE = r"(?:St\.\ )?[A-Z][^\W\d_]{1,24}(?:['’-][^\W\d_]{1,24}){0,3}"
_TOWN = rf"{_PLACE}(?:\ (?:(?:upon|on|under|le|of|in|the)\ )?{_PLACE}){{0,2}}"
_REGION = rf"(?:{_STATES}(?:,?\ {{1,2}}{_ZIP})?|{_STATE_NAMES},?\ {{1,2}}{_ZIP}|{_POSTCODE}|{_CANADIAN}|{_ZIP})"
_TAIL = rf"{_UNIT}{{0,2}}(?:,\ {{0,2}}{_TOWN}(?=\s*(?:[,.;:)]|$|\n)|\ (?:{_REGION})))?(?:,?\ {{1,2}}{_REGION}){{0,2}}"
"""What may follow a street or a box: flat, town, state, postcode."""


_PLACE_SUFFIXES = "straße|strasse|str\\.|weg|allee|platz|gasse"
_NUMBER_AFTER = r"\ \d{1,4}[a-z]?(?![\w/-]|[.,]\d)"


@cache
def _tail() -> re.Pattern[str]:
    return re.compile(_TAIL)


@cache
def _rules() -> tuple[re.Pattern[str], ...]:
    number = r"(?<![\w.,/-])\d{1,5}[A-Za-z]?(?:[-/]\d{1,4})?"
    compass = r"(?:(?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\.?\ )?"
    tail = r"(?P<tail>)"  # marks the rules that `_tail` goes on from; one copy compiles faster than four
    return tuple(
        re.compile(pattern)
        for pattern in (
            rf"{_LEAD}{number},?\ {compass}(?:(?:{_PROPER}|\d{{1,3}}(?:st|nd|rd|th)|of|the)\ ){{1,4}}(?:{_STREETS})(?![\w])\.?"
            rf"(?:\ (?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)(?![\w]))?{tail}",
            # In lower case only with the street's kind written out: "12 oak street".
            rf"{number}\ (?:[a-z]{{3,20}}\ ){{1,2}}(?:street|road|avenue|lane|boulevard)(?![\w])",
            rf"(?:[Rr]ue|[Cc]alle|[Vv]ia|[Aa]venida|[Aa]v\.|[Pp]lace)\ (?:de\ (?:la\ |los\ )?)?{_PROPER}(?:\ {_PROPER})?"
            rf",?{_NUMBER_AFTER}{tail}",
            rf"{number},?\ (?:rue|avenue|boulevard)\ (?:de\ |du\ |des\ )?(?:la\ |l['’])?{_PROPER}(?:\ {_PROPER})?{tail}",
            rf"\b[A-Z][a-zäöüß]{{2,24}}(?:{_PLACE_SUFFIXES}){_NUMBER_AFTER}(?:,\ (?:\d{{5}}\ )?{_PROPER})?",
            rf"\b[Pp]\.?\ ?[Oo]\.?\ [Bb]ox\ \d{{1,6}}(?![\w]){tail}",
            rf"(?<![\w]){_TOWN},?\ (?:{_STATES}|{_STATE_NAMES}),?\ {{1,2}}{_ZIP}",
            r"(?<![\w.-])(?P<area>[A-Z]{1,2})\d[A-Z\d]?\ \d[ABD-HJLNP-UW-Z]{2}(?![\w])",
            rf"\b(?:[Zz]ip|ZIP)(?:\ [Cc]ode)?\ ?:?\ ?{_ZIP}",
            rf"\b[Pp]ost ?[Cc]ode\ ?:?\ ?(?:{_POSTCODE}|{_CANADIAN}|\d{{4,6}}(?![\w]))",
            rf"(?<![\w.-]){_CANADIAN}",
            rf"(?:(?<=[Ll]ives\ in\ )|(?<=[Ll]iving\ in\ )|(?<=[Rr]esides\ in\ )|(?<=[Rr]esident\ of\ ))"
            rf"{_TOWN}(?:,?\ {_REGION})?",
        )
    )


def find(text: str) -> Iterator[Span]:
    """The spans of addresses in `text`; they may overlap."""
    tail = _tail()
    for rule in _rules():
        for match in rule.finditer(text):
            # "T12 3AB" is a vertebra and a code: by itself a postcode has to begin with one of Royal Mail's areas.
            if "area" not in rule.groupindex or match["area"] in cue("postcode_areas"):
                after = tail.match(text, match.end()) if "tail" in rule.groupindex else None
                yield match.start(), after.end() if after else match.end()
