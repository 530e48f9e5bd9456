"""Numbers as a reader takes them in: three digits and a unit."""

from __future__ import annotations

DASH = "–"


def number(value: float) -> str:
    """Three significant digits, without an exponent.

    >>> number(0.06712), number(6.071), number(44.12), number(1234.5)
    ('0.0671', '6.07', '44.1', '1,234')
    """
    size = abs(value)
    if size >= 99.95 or value == 0:
        return f"{value:,.0f}"
    for limit, digits in ((9.995, 1), (0.9995, 2), (0.09995, 3)):
        if size >= limit:
            return f"{value:.{digits}f}"
    return f"{value:.3g}" if size < 1e-4 else f"{value:.4f}"


def times(value: float, sign: str = "×") -> str:
    """A ratio: one decimal where it counts.

    >>> times(2.43), times(21.4), times(1.0)
    ('2.4 ×', '21 ×', '1.0 ×')
    """
    return f"{value:,.0f} {sign}" if value >= 19.95 else f"{value:.1f} {sign}"


def ms(value: float) -> str:
    """Milliseconds, or seconds from one on.

    >>> ms(6.07), ms(9750)
    ('6.07 ms', '9.75 s')
    """
    return f"{number(value / 1e3)} s" if value >= 1e3 else f"{number(value)} ms"


def size(count: float) -> str:
    """Bytes in decimal units.

    >>> size(410), size(30934), size(4072768)
    ('410 B', '30.9 kB', '4.07 MB')
    """
    for unit, of in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * of:
            return f"{number(count / of)} {unit}"
    return f"{count:.0f} B"


def tick(value: float) -> str:
    """A round number on an axis.

    >>> tick(0.5), tick(20.0), tick(5000.0)
    ('0.5', '20', '5,000')
    """
    return f"{value:,.6g}"


def size_tick(count: float) -> str:
    """
    >>> size_tick(500), size_tick(20000.0)
    ('500 B', '20 kB')
    """
    for unit, of in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= of:
            return f"{tick(count / of)} {unit}"
    return f"{tick(count)} B"


def percent(share: float, digits: int = 1) -> str:
    """Never 100% for less than all, never 0% for more than none.

    >>> percent(0.7204), percent(5693 / 5694), percent(1.0), percent(0.99999, 2)
    ('72.0%', '>99.9%', '100%', '>99.99%')
    """
    if share in (0, 1):
        return f"{share:.0%}"
    most = 100 - 10**-digits
    if 100 * share > most:
        return f">{most:.{digits}f}%"
    return f"{100 * share:.{digits}f}%"


def error(value: float) -> str:
    """
    >>> error(0.00049)
    '4.9e-04'
    """
    return f"{value:.1e}"


def whole(count: float) -> str:
    """
    >>> whole(30934)
    '30,934'
    """
    return f"{count:,.0f}"


def listed(words: list[str]) -> str:
    """
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
