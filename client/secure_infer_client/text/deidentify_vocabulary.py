"""What the rule for names knows about a word: is it a listed name, a term that must stay, or neither.

Sources, all packaged, read on first use: `deidentify_names.txt` (given and family names), `deidentify_terms.txt`
(eponyms and the words of ICD-10-CM) and the whole words of the embedder's WordPiece vocabulary, which stand for common
English. A word in none of them, and without a medical ending, is unknown: capitalised, it may well be a name.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import Enum
from functools import cache, lru_cache
from importlib import resources

NAMES, TERMS, CUES = "deidentify_names.txt", "deidentify_terms.txt", "deidentify_cues.txt"
WORDPIECES = "tokenizer.json"


class Standing(Enum):
    """What a capitalised word is likely to be."""

    NAME = "listed, and hardly ever anything else"
    EITHER = "listed, and also a word or a drug"
    EPONYM = "listed, and also a disease, sign or test"
    UNKNOWN = "in no list"
    TERM = "vocabulary"

    @property
    def listed(self) -> bool:
        return self in (Standing.NAME, Standing.EITHER, Standing.EPONYM)


@dataclass(frozen=True)
class Vocabulary:
    """The packaged lists, normalised by `folded`."""

    names: frozenset[str]
    ambiguous: frozenset[str]
    eponyms: frozenset[str]
    terms: frozenset[str]
    words: frozenset[str]


# Letters that Unicode does not decompose into a base letter and a mark.
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "ß": "ss", "æ": "ae", "œ": "oe", "đ": "d", "ð": "d", "þ": "th", "ı": "i"})
_MEDICAL_ENDING = re.compile(
    r"(?: itis | itides | omas? | omata | os[ie]s | [ae]?emi[ac] | uria | path(?:y|ies|ic) | ectom(?:y|ies) | otomy |"
    r" ostomy | plasty | scop(?:y|ic) | graph(?:y|ic) | gram | log(?:y|ist|ical) | troph(?:y|ic) | plasia | plastic |"
    r" penia | algia | ly(?:sis|tic) | geni[cs] | genesis | [ts]ions? | ness | less | ful | ments? | [ai]ble | ity | ities |"
    r" ious | eous | ical | iform | oid | oidal | ular | ized | ised | azoles? | olol | pril | sartan | statin | m[iy]cin |"
    r" cillin | floxacin | mab | [ntv]inib | [tbcfg]?vir | gliptin | gliflozin | glutide | parin | xaban | triptan | setron |"
    r" dipine | zepam | zolam | barbital | caine | thiazide | amide | idone | apine | oxetine | tidine | phylline | terol |"
    r" sone | solone | onide | mide | pram | zosin | dronate | platin | taxel | rubicin | trexate | profen | oxacin |"
    r" cycline | mycetin | penem | cef\w* | ase | rrh[eo]a | rrhag(?:e|ic) | cocc(?:al|us) | bacter | virus | phobia |"
    r" plegi[ac] | pares[ie]s | ism | ectasis | cele | ptosis | tomy | therapy | metry | genous | philia | cyte )\Z",
    re.VERBOSE,
)


def folded(word: str) -> str:
    """Lower case, without accents: `Müller-Łukasz` gives `muller-lukasz`."""
    if word.isascii():
        return word.lower()
    decomposed = unicodedata.normalize("NFKD", word.lower().translate(_LETTERS))
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def medical_ending(word: str) -> bool:
    """Whether a normalised word ends like a diagnosis, procedure or drug."""
    return len(word) > 5 and _MEDICAL_ENDING.search(word) is not None


@cache
def vocabulary() -> Vocabulary:
    """The lists, read once. Costs some 10 ms the first time."""
    names, terms = _sections(NAMES), _sections(TERMS)
    folder = resources.files(__package__)
    # A search for the keys takes a third of the time of parsing the file; its few other keys are English words too.
    pieces = re.findall(r'"([a-z]{2,})":', (folder / WORDPIECES).read_text(encoding="utf-8"))
    return Vocabulary(
        names=names["names"],
        ambiguous=names["ambiguous"],
        eponyms=terms["eponyms"],
        terms=terms["words"],
        words=frozenset(pieces),
    )


@cache
def cue(section: str) -> frozenset[str]:
    """The words of one section of `deidentify_cues.txt`."""
    return _sections(CUES)[section]


@lru_cache(maxsize=4096)
def standing(word: str) -> Standing:
    """The standing of a normalised word; one of hyphenated parts stands as its parts do together."""
    if "-" in word:
        parts = {_single(part) for part in word.split("-") if part}
        if Standing.TERM in parts:
            return Standing.TERM
        if Standing.EPONYM in parts:  # Anne-Marie may be a person, Brown-Sequard is none
            return Standing.EITHER if Standing.NAME in parts else Standing.EPONYM
        return next((kind for kind in (Standing.NAME, Standing.EITHER) if kind in parts), Standing.UNKNOWN)
    return _single(word)


def _single(word: str) -> Standing:
    known = vocabulary()
    word = word.replace("'", "").replace("’", "")
    if word in known.eponyms:
        return Standing.EPONYM if word in known.names else Standing.TERM
    if word in known.names:
        return Standing.EITHER if word in known.ambiguous else Standing.NAME
    if word in known.terms or word in known.words or medical_ending(word):
        return Standing.TERM
    return Standing.UNKNOWN


@cache
def _sections(file: str) -> dict[str, frozenset[str]]:
    """`[section]` lines, each followed by words; lines that start with # are the provenance."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in (resources.files(__package__) / file).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            current = found.setdefault(line.strip("[]"), [])
        elif not line.startswith("#"):
            current += line.split()
    return {section: frozenset(words) for section, words in found.items()}
