"""The suite `cost` as text."""

from __future__ import annotations

from secure_infer_benchmarks.figures import Suite


def table(suite: Suite) -> str:
    """The suite as text, ratios first."""
    lines = [
        f"{'':<58} {'x plain':>8} {'call ms':>8} {'quartiles':>13} {'encrypt':>7} {'network':>7} {'server':>7} {'decrypt':>7} "
        f"{'up':>9} {'down':>7} {'keys':>9} {'max err':>7} {'bound':>7} {'agree':>6}"
    ]
    for row in suite["rows"]:
        if "reason" in row:
            lines.append(f"{row['id']:<58} no figures: {row['reason']}")
            continue
        figures, counts = row["figures"], row["counts"]
        call = figures["call_ms"]
        quartiles = f"{call['low']:.1f}–{call['high']:.1f}"
        stages = " ".join(
            f"{figures[name]['median']:>7.2f}" if name in figures else f"{'–':>7}"
            for name in ("encrypt_ms", "network_ms", "server_ms", "decrypt_ms")
        )
        sizes = " ".join(
            f"{counts[name]:>{width},}" if name in counts else f"{'–':>{width}}"
            for name, width in (("bytes_up", 9), ("bytes_down", 7), ("key_bytes", 9))
        )
        errors = " ".join(
            f"{counts[name]:>7.0e}" if counts.get(name) is not None else f"{'–':>7}"
            for name in ("max_logit_error", "error_bound")
        )
        lines.append(
            f"{row['id']:<58} {figures['ratio']['median']:>8.1f} {call['median']:>8.2f} {quartiles:>13} {stages} "
            f"{sizes} {errors} {counts['agreement']:>6.1%}"
        )
    held = ", ".join(f"{who} {size / 2**20:.0f} MiB" for who, size in suite["memory_bytes"].items())
    lines += [f"{suite['links']}; memory at the end: {held}"]
    return "\n".join(lines) + "\n"
