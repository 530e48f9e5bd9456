"""The suite `scaling` as text."""

from __future__ import annotations

from secure_infer_benchmarks.figures import Row, Suite
from secure_infer_benchmarks.network.table import off

IN_WORDS = {
    "d": "features",
    "h": "hidden units",
    "K": "classes",
    "batch": "records a call",
    "clients": "clients at once",
    "sessions": "sessions kept open",
}


def table(suite: Suite) -> str:
    """The suite as text: measured to predicted first."""
    lines = []
    for axis, described in IN_WORDS.items():
        rows = [row for row in suite["rows"] if row["axis"] == axis]
        if not rows:
            continue
        lines.append(
            f"{f'{axis}, {described}':<30} {'to predicted':>12} {'measured':>10} {'predicted':>10} {'call ms':>9} "
            f"{'predicted':>10} {'records/s':>9} {'up':>11} {'down':>9} {'keys':>9} {'memory':>10}"
        )
        lines += [_line(row) for row in rows]
    return "\n".join(
        [
            *lines,
            f"around {suite['base']}, {suite['links']}. measured, predicted: a server's ms (CKKS), a party's computing ms (MPC),",
            "  of clients records a second; call ms beside the planner's for the whole call (under MPC gRPC comes on top of it);",
            "  ! where a prediction is off by more than 1.5 times; memory: bytes of one more session in all processes",
            "",
        ]
    )


def _line(row: Row) -> str:
    figures, counts = row["figures"], row["counts"]

    def median(name: str | None, digits: int) -> str:
        return f"{figures[name]['median']:,.{digits}f}" if name in figures else "–"

    def count(name: str, form: str) -> str:
        return f"{counts[name]:{form}}" if name in counts else "–"

    predicts = row.get("predicts")
    predicted = "predicted_ms" if predicts is None or predicts.endswith("_ms") else f"predicted_{predicts}"
    share = "–" if predicts is None else off(figures[predicts]["median"], counts[predicted])
    return (
        f"  {row['value']:>8,} {row['scheme']:<8} {row['shape'] if row['axis'] in 'dhK' else '':<18}{share:>6} "
        f"{median(predicts, 2):>12} {count(predicted, ',.2f'):>10} {median('call_ms', 2):>9} "
        f"{count('predicted_call_ms', ',.2f'):>10} {median('records_a_second', 0):>9} {count('bytes_up', ','):>11} "
        f"{count('bytes_down', ','):>9} {count('key_bytes', ','):>9} {count('memory_bytes', ','):>10}"
    )
