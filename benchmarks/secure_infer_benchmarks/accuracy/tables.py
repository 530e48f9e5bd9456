"""The suite as text: agreement first, then calibration, then every class."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from textwrap import wrap
from typing import Any

from secure_infer_benchmarks.figures import Row, Suite

WIDTH = 120


def table(suite: Suite) -> str:
    """Plain text for a terminal."""
    lines: list[str] = []
    for _, grouped in groupby(suite["rows"], key=lambda row: row["set"]):
        rows = list(grouped)
        lines += [*wrap(f"{rows[0]['set_described']}. {suite['sets'][rows[0]['set']]}", WIDTH), *_answers(rows), ""]
        whole = [row for row in rows if "counts" in row and row["way"] == row["scheme"]]
        for row in whole:
            if row["scheme"] == "ckks":
                lines += [*_calibration(row), ""]
        lines += [*_chapters(whole), ""] if whole else []
    return "\n".join(lines)


def _answers(rows: list[Row]) -> Iterator[str]:
    yield (
        f"  {'':<38} {'texts':>6} {'agree':>8} {'beyond':>8} {'accuracy':>8} {'95% interval':>14} {'plain':>6} {'macro-F1':>8} "
        f"{'plain':>6} {'calib.':>6} {'plain':>6} {'err 99.9%':>9} {'largest':>7} {'bound':>7}"
    )
    for row in rows:
        name = f"  {row['head']}, {row['way'].replace('/', ', ')}"
        if "reason" in row:
            yield f"{name:<40} {row['reason']}"
            continue
        counts = row["counts"]
        sure = counts["agreement_beyond_twice_the_bound"]
        cells = [
            f"{counts['texts']:>6,}",
            f"{counts['agreement']:>8.3%}",
            f"{'–' if sure is None else f'{sure:.3%}':>8}",
            f"{counts['accuracy']:>8.2%}",
            f"{100 * counts['accuracy_low']:.1f}–{100 * counts['accuracy_high']:.1f}".rjust(14),
            f"{counts['plaintext_accuracy']:>6.2%}",
            f"{counts['macro_f1']:>8.2%}",
            f"{counts['plaintext_macro_f1']:>6.2%}",
            f"{counts['calibration_error']:>6.2%}",
            f"{counts['plaintext_calibration_error']:>6.2%}",
            f"{row['logit_error_quantiles']['0.999']:>9.1e}",
            f"{counts['max_logit_error']:>7.1e}",
            f"{counts['error_bound']:>7.1e}",
        ]
        yield " ".join([f"{name:<40}", *cells])
    yield "  agree: answers that are plaintext's; beyond: those whose margin is over twice the bound; calib.: calibration error"


def _calibration(row: Row) -> list[str]:
    """The reliability curve, a column a bin."""
    curve, plain = row["reliability"], row["plaintext_reliability"]

    def line(title: str, cells: list[str]) -> str:
        return f"  {title:<40}" + "".join(f"{cell:>9}" for cell in cells)

    right = {one["from"]: f"{one['accuracy']:.1%}" for one in plain}
    return [
        line(f"{row['head']}, {row['way']}: probability", [f"{one['from']:.1f}–{one['to']:.1f}" for one in curve]),
        line("texts", [f"{one['texts']:,}" for one in curve]),
        line("mean probability", [f"{one['confidence']:.1%}" for one in curve]),
        line("right", [f"{one['accuracy']:.1%}" for one in curve]),
        line("right, plaintext", [right.get(one["from"], "–") for one in curve]),
    ]


def _chapters(rows: list[Row]) -> list[str]:
    """F1 of every class: a head after the other, by scheme, each beside plaintext."""
    columns: list[tuple[str, str, list[float]]] = []
    for _, group in groupby(rows, key=lambda row: row["head"]):
        some = list(group)
        columns += [(row["head"], row["scheme"], [one["f1"] for one in row["chapters"]]) for row in some]
        columns.append(("", "plaintext", [one["plaintext_f1"] for one in some[0]["chapters"]]))
    heads = "".join(f"  {head:<28}" for head in dict.fromkeys(head for head, _, _ in columns if head))
    lines = [
        f"  {'F1':<30} {'':>6}{heads}",
        f"  {'':<30} {'texts':>6}" + "".join(f"{way:>10}" for _, way, _ in columns),
    ]
    classes: list[dict[str, Any]] = rows[0]["chapters"]
    for place, one in enumerate(classes):
        cells = "".join(f"{shares[place]:>10.1%}" for _, _, shares in columns)
        lines.append(f"  {one['label']:<30} {one['texts']:>6,}{cells}")
    return lines
