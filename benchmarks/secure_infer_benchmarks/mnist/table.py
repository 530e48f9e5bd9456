"""The suite as text, ratios first."""

from __future__ import annotations

from secure_infer_benchmarks.figures import Row, Suite
from secure_infer_benchmarks.mnist.published import FIRST, SECOND

_WIDE = 74


def table(suite: Suite) -> str:
    """Ratios to the published rows, then milliseconds, bytes and what the answers are worth."""
    rows = [row for row in suite["rows"] if "figures" in row]
    known = [f"{name} {found['test']:.2%} of all test images" for name, found in suite["accuracy"].items()]
    lines = [
        f"784 -> 128 -> 64 -> 10; asked: {suite['data']}",
        "; ".join([f"heads: {suite['heads']}", *known]),
        "",
        "beside the published reference of 2025, and of 2026 (another machine; see its note)",
        f"{'':<{_WIDE}} {'times as fast':>16} {'part of its keys':>18} {'of its bytes up':>16}",
    ]
    for row in rows:
        if "ratios" in row:
            old, new = row["ratios"][FIRST], row["ratios"][SECOND]
            pairs = [f"{old[name]:g}, {new[name]:g}" for name in ("speed_up", "key_share", "bytes_up_share")]
            lines.append(f"{row['id']:<{_WIDE}} {pairs[0]:>16} {pairs[1]:>18} {pairs[2]:>16}")
    lines += ["", f"{'':<{_WIDE}} {'server ms':>9} {'client ms':>9} {'up':>9} {'down':>9} {'keys':>13}"]
    for row in rows:
        lines += _row(row)
    lines += [f"{row['id']:<{_WIDE}} {row['reason']}" for row in suite["rows"] if "figures" not in row]
    return "\n".join(lines) + "\n"


def _row(row: Row) -> list[str]:
    figures, counts = row["figures"], row["counts"]
    each = "" if "server_ms" in figures else "_a_record"
    client = figures.get(f"client_ms{each}")
    up, down = (counts.get(f"{name}_a_record", counts.get(name)) for name in ("bytes_up", "bytes_down"))
    lines = [
        f"{row['id']:<{_WIDE}} {figures[f'server_ms{each}']['median']:>9.2f} "
        f"{'' if client is None else format(client['median'], '.2f'):>9} {up:>9,.0f} {down:>9,.0f} {counts['key_bytes']:>13,}",
        f"    {row['variant']}; {row['parameters']}; {_security(row)}",
    ]
    if "call_ms" in figures:
        lines.append(f"    {figures['call_ms']['median']:.2f} ms a call, from rows to answers, on loopback")
    if "images" in counts:
        told = [f"agreement with plaintext {counts['agreement']:.2%} of {counts['images']:.0f}"]
        if "accuracy" in counts:
            told.append(f"accuracy {counts['accuracy']:.2%}, plaintext {counts['plaintext_accuracy']:.2%} of the same")
        if "max_logit_error" in counts:
            told.append(f"logit error {counts['max_logit_error']:.1e}, bound {counts['error_bound']:.1e}")
        lines.append(f"    {'; '.join(told)}")
    lines.append(f"    {row['note']}")
    if row["published"]:
        lines.append(f"    from {row['source']}")
    return lines


def _security(row: Row) -> str:
    found = row["security"]
    bits = "no security level" if found["bits"] is None else f"{found['bits']}-bit"
    model = "hidden" if found["model_private"] else "not hidden"
    smudging = "" if found["smudging_bits"] is None else f", {found['smudging_bits']} smudging bits"
    return f"{bits}, model {model} from key holders{smudging}; rests on {found['rests_on']}"
