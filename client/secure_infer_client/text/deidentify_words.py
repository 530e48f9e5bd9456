"""A text as words, each with what stands around it and what the vocabulary knows about it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from secure_infer_client.text.deidentify_vocabulary import Standing, folded, standing

Span = tuple[int, int]

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_REGULAR = re.compile(
    r"(?:(?:Mc|Mac|Fitz|De|Di|Da|La|Le|Van|O['’]|D['’])?[^\W\d_a-z][^\W\d_A-Z]+)(?:[-'’][^\W\d_]+)*\Z"
)
_PHRASES = re.compile(
    r"\b(?:ann arbor|lou gehrig|pierre robin|charles bonnet|ramsay hunt|marcus gunn|austin flint|bence[ -]jones|graham steell?|"
    r"gilles de la tourette|da costa|west nile|new york heart|saint louis|st\.? louis|argyll robertson|gordon holmes|"
    r"holmes adie|ross river|van der woude|de quervain|von willebrand|mccune albright|stevens johnson|budd chiari|"
    r"braxton hicks|sinding larsen|graham-little|rocky mountain|virginia mason|rose bengal|john cunningham|robin sequence|"
    r"san francisco|los angeles)\b",
    re.IGNORECASE,
)
_BREAK = re.compile(r"[.:|\n;]|  ")


@dataclass(frozen=True, slots=True)
class Word:
    """A word at [start, end), without a possessive ending; `folded` is its form in the lists."""

    start: int
    end: int
    text: str
    folded: str
    gap: str
    """What stands between the word before and this one."""
    possessive: bool
    standing: Standing

    @property
    def capitalised(self) -> bool:
        return self.text[0].isupper()

    @property
    def initial(self) -> bool:
        return len(self.text) == 1 and self.text.isupper()

    @property
    def shouted(self) -> bool:
        return len(self.text) > 1 and self.text.isupper()

    @property
    def regular(self) -> bool:
        """Spelt like a name: one capital, or two as in McKay; not IgE, NaN or PyTorch."""
        return self.shouted or _REGULAR.match(self.text) is not None

    @property
    def nameable(self) -> bool:
        """Whether the word alone may be taken for a name where something else says that one is due."""
        return self.standing is not Standing.TERM and len(self.text) > 1

    @property
    def shaped(self) -> bool:
        """An unknown word spelt like a name: capitalised, with a vowel, not an abbreviation."""
        vowel = any(character in "aeiouy" for character in self.folded)
        return self.standing is Standing.UNKNOWN and len(self.text) > 2 and vowel and not self.shouted and self.regular


def split(text: str, taken: Sequence[Span]) -> Iterator[Word]:
    """The words of `text` outside the spans in `taken` and outside phrases that hold names of nobody in particular."""
    blocked = sorted([*taken, *(match.span() for match in _PHRASES.finditer(text))])
    before, block = 0, 0
    for match in _WORD.finditer(text):
        start, end = match.span()
        while block < len(blocked) and blocked[block][1] <= start:
            block += 1
        if block < len(blocked) and blocked[block][0] < end:
            continue
        # Letters beside digits are a code ("T12", "3rd"), not a word.
        if (start and (text[start - 1].isdigit() or text[start - 1] == "_")) or text[end : end + 1].isdigit():
            continue
        word = match[0]
        possessive = word[-2:] in ("'s", "’s") and len(word) > 2
        if possessive:
            word, end = word[:-2], end - 2
        form = folded(word)
        yield Word(start, end, word, form, text[before:start], possessive, standing(form))
        before = match.end()


def casing_tells(words: Sequence[Word]) -> bool:
    """Whether capitals mean something here: not in a Title Case Heading, not IN CAPITALS."""
    known = [word for word in words[1:] if word.standing is Standing.TERM and len(word.text) > 3]
    capitals = sum(word.capitalised for word in known if not _BREAK.search(word.gap))
    return 2 * capitals <= len(known)
