"""Names of people: found by what stands around them, by lists, and by the shape of words that no list knows.

Evidence, from strong to weak: a title ("Dr Okafor"), a label ("Name: ..."), credentials ("A. Okafor, MD"), a relation
("seen by ...", "her daughter ..."), two listed names side by side, an unambiguous listed name, two capitalised words
that no list knows. Against it: vocabulary, and a following head noun ("Wilson disease" names no patient).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from secure_infer_client.text.deidentify_vocabulary import Standing, cue, medical_ending
from secure_infer_client.text.deidentify_words import Span, Word, casing_tells, split

_GRADE = re.compile(r" (?:[A-D]\b|\d{1,2}(?![\d/]))")
"""What follows a scale ("Rankin 3") and its one word."""
_LABEL_SKIPS = (" ", "  ", ": ", ":", " : ", " - ", ", ", ",\n", "\n", " (", "; ", " is ")
_LONGEST = 6
"""Words in one name at most, so that a text of nothing but names costs linear time."""


def find(text: str, taken: Sequence[Span] = ()) -> Iterator[Span]:
    """The spans of names in `text`, titles included, outside the spans in `taken`."""
    if not text or text.isspace():
        return
    words = list(split(text, taken))
    telling = casing_tells(words)
    index = 0
    while index < len(words):
        length, first = _name_at(words, index, telling, text)
        if length:
            last = words[index + length - 1]
            yield words[first].start, last.end + 2 * last.possessive
            index += length
        else:
            index += 1


def _name_at(words: Sequence[Word], index: int, telling: bool, text: str) -> tuple[int, int]:
    """(number of words of a name that starts at `index`, 0 for none; the word its removal starts with)."""
    word = words[index]
    if word.folded in cue("titles") and (word.capitalised or not telling or word.folded in ("dr", "mr", "mrs")):
        length = _titled(words, index + 1, telling)
        return (length + 1, index) if length else (0, index)
    if not word.capitalised or word.folded in cue("titles"):
        return _uncapitalised_pair(words, index), index
    if _inverted(words, index, text):
        return 2, index
    labelled = index > 0 and words[index - 1].folded in cue("labels") and ":" in word.gap
    run = _run(words, index, telling, sure=labelled)
    if not run:
        return 0, index
    real = [
        words[i] for i in range(index, index + run) if not words[i].initial and words[i].folded not in cue("particles")
    ]
    if not real:
        return 0, index
    announced = not _headed(words, index + run) and (_due(words, index, real) or _signed(words, index + run, text))
    if announced and (telling or labelled or all(name.standing.listed or name.shaped for name in real)):
        return _with_first_name(words, index, run, due=True), index
    graded = len(real) == 1 and _GRADE.match(text, words[index + run - 1].end) is not None
    bare = not graded and _bare(words, index, run, real, telling)
    return (_with_first_name(words, index, run) if bare else 0), index


def _titled(words: Sequence[Word], index: int, telling: bool) -> int:
    """Length of the name after a title. Anything capitalised is one; in lower case it has to be no vocabulary."""
    if index >= len(words) or words[index].gap not in (" ", "  ", ". ", "."):
        return 0
    first = words[index]
    if first.standing in (Standing.EPONYM, Standing.TERM) and _headed(words, index + 1):
        return 0
    if first.folded in cue("particles"):
        return _run(words, index, telling, sure=True)
    if not first.capitalised:
        return 1 + _lower_rest(words, index + 1) if first.nameable else 0
    if telling or first.nameable or first.initial:
        return max(1, _run(words, index, telling, sure=True))
    return 0


def _lower_rest(words: Sequence[Word], index: int) -> int:
    listed = index < len(words) and words[index].gap == " " and words[index].standing.listed
    return int(listed)


def _run(words: Sequence[Word], index: int, telling: bool, *, sure: bool = False) -> int:
    """How many words from `index` on may belong to one name: names, initials between them, particles before them.

    sure: the first word is one whatever it looks like, and so are words in capitals that no list knows.
    """
    end, position = index, index
    while position < len(words) and position < index + _LONGEST:
        word = words[position]
        after = words[position - 1] if position > index else None
        if after is not None and not _joined(after, word):
            break
        if after is not None and after.possessive:
            break
        if word.folded in cue("particles") and position + 1 < len(words):
            position += 1
            continue
        if not word.capitalised:
            break
        named = word.standing.listed or word.shaped or (word.nameable and (sure or not telling))
        if not (named or word.initial or (sure and position == index)):
            break
        # "Mary Wilson disease": the disease keeps its eponym.
        if word.standing is Standing.EPONYM and _headed(words, position + 1) and not (sure and position == index):
            break
        position += 1
        if not word.initial or position - 1 > index:
            end = position
    return end - index


def _joined(before: Word, word: Word) -> bool:
    return word.gap in (" ", "  ") or (before.initial and word.gap in (". ", "."))


def _headed(words: Sequence[Word], index: int) -> bool:
    """Whether the word at `index` makes an eponym of the one before it."""
    if index >= len(words) or words[index].gap not in (" ", "  ", "-", "' ", "’ ", "'s ", "’s "):
        return False
    word = words[index].folded
    return word in cue("heads") or (
        word.endswith(("itis", "oma", "osis", "emia", "pathy", "plasty", "trophy", "plegia"))
    )


def _due(words: Sequence[Word], index: int, real: Sequence[Word]) -> bool:
    """Whether the words before `index` announce a name."""
    if index == 0 or not real[0].nameable:
        return False
    before, gap = words[index - 1], words[index].gap
    two_before = words[index - 2].folded if index > 1 else ""
    lone_eponym = len(real) == 1 and real[0].standing is Standing.EPONYM
    if before.folded in cue("labels") and gap in _LABEL_SKIPS:
        return True
    if before.folded == "is" and two_before == "name" and gap == " ":
        return True
    if lone_eponym or before.possessive:
        return False
    if before.folded in cue("relations") and gap in _LABEL_SKIPS:
        return True
    if gap not in (" ", ": ", ":"):
        return False
    return (before.folded == "by" and two_before in (*cue("by"), "in", "on", "up")) or (
        before.folded in ("with", "to") and two_before in cue("with")
    )


def _signed(words: Sequence[Word], index: int, text: str) -> bool:
    """Whether credentials, an age or what only people do follow the name that ends before `index`."""
    end = words[index - 1].end
    if re.match(
        r",?\s(?:is\san?\s|\()?(?:\d{1,3}[\s-]?(?:y/?o\b|yrs?\b|years?[\s-]old|[MF]\b)|[dD]\.?[oO]\.?[bB]\b|aged\s\d)",
        text[end : end + 24],
    ):
        return True
    if index >= len(words) or words[index].gap not in (" ", ", ", ","):
        return False
    following = words[index]
    if following.text in cue("credentials"):
        return True
    sentence_start = index < 2 or "." in words[index - 1].gap or words[index - 1].gap.endswith("\n")
    return (
        following.folded in cue("verbs")
        and following.gap == " "
        and (sentence_start or words[index - 1].standing.listed)
    )


def _bare(words: Sequence[Word], index: int, run: int, real: Sequence[Word], telling: bool) -> bool:
    """Whether a run that nothing announces is a name by itself."""
    if _headed(words, index + run) or _eponymous(words, index, run):
        return False
    kinds = {name.standing for name in real}
    if len(real) == 1:
        if words[index].initial or any(words[i].initial for i in range(index, index + run)):
            vitamin = index > 0 and words[index - 1].folded in (
                "vitamin",
                "hepatitis",
                "type",
                "group",
                "grade",
                "stage",
            )
            return telling and not vitamin and real[0].standing is not Standing.UNKNOWN and not real[0].shouted
        return telling and _certain(real[0])
    if not telling:
        return len(real) <= 3 and Standing.NAME in kinds and all(kind.listed for kind in kinds)
    if all(kind.listed for kind in kinds) or Standing.NAME in kinds:
        return not all(name.shouted and len(name.text) < 5 for name in real)
    return Standing.EPONYM not in kinds


def _eponymous(words: Sequence[Word], index: int, run: int) -> bool:
    """Whether a run stands where terms have their eponyms: "[Haas]", "circle of Willis", "Brodie's abscess"."""
    last = index + run - 1
    if words[index].gap.endswith(("[", "-", "–")) or (last + 1 < len(words) and words[last + 1].gap.startswith("-")):
        return True
    if (
        index > 1
        and words[index - 1].folded in ("of", "the")
        and any(word.folded in cue("parts") for word in words[index - 2 : index])
    ):
        return True
    if not words[last].possessive:
        return False
    return last + 1 >= len(words) or words[last + 1].folded not in cue("owned")


def _certain(word: Word) -> bool:
    return word.standing is Standing.NAME and word.regular and not (word.shouted and len(word.text) < 5)


def _inverted(words: Sequence[Word], index: int, text: str) -> bool:
    """ "Okafor, Adaeze:" at the start of a line, where charts put the name whatever it is."""
    if index + 1 >= len(words) or (index and "\n" not in words[index].gap) or words[index + 1].gap != ", ":
        return False
    pair = words[index : index + 2]
    end = pair[1].end
    closed = re.match(r"\s?[:;|(\n]|\s[-–]\s|,?\s(?:DOB|MRN|\d{1,3}\s?[MFy])|\s*\Z", text[end : end + 12])
    return closed is not None and all(word.capitalised and (word.shaped or word.standing.listed) for word in pair)


def _with_first_name(words: Sequence[Word], index: int, run: int, *, due: bool = False) -> int:
    """`run`, and "Adaeze" too where the text says "Okafor, Adaeze"."""
    following = index + run
    if following < len(words) and words[following].gap == ", " and not words[following - 1].possessive:
        word = words[following]
        likely = word.standing is Standing.NAME or (due and run == 1 and word.nameable)
        if word.capitalised and likely and not _headed(words, following + 1):
            return run + 1
    return run


def _uncapitalised_pair(words: Sequence[Word], index: int) -> int:
    """ "john smith", where both are listed and hardly ever anything else."""
    if index + 1 >= len(words) or words[index + 1].gap != " " or words[index].capitalised:
        return 0
    pair = words[index : index + 2]
    sure = all(
        word.standing is Standing.NAME and len(word.text) > 3 and not medical_ending(word.folded) for word in pair
    )
    return 2 if sure and not _headed(words, index + 2) else 0
