"""Both demonstrations' results, side by side."""

from __future__ import annotations

from typing import Any

from secure_infer_client.demonstration import ckks, mpc

_LEFT, _WIDTH = 34, 34


def lines(encrypted: dict[str, Any], shared: dict[str, Any]) -> list[str]:
    """One row a figure; who learns what below, as it takes a line each."""
    rows = [
        ("", "ckks, one server", "mpc, two parties"),
        ("accuracy", *(f"{r['accuracy_encrypted']:.1%}" for r in (encrypted, shared))),
        ("agreement with plaintext", *(f"{r['agreement']:.2%}" for r in (encrypted, shared))),
        ("largest logit error, stated bound", *(_error(r) for r in (encrypted, shared))),
        ("latency, median", *(f"{r['latency_ms']['total']:.2f} ms" for r in (encrypted, shared))),
        ("  of it not embedding", *(f"{_secure(r):.2f} ms" for r in (encrypted, shared))),
        ("bytes up, down", *(f"{r['bytes_up']:,}, {r['bytes_down']:,}" for r in (encrypted, shared))),
        ("key, once", f"{encrypted['key_bytes']:,} bytes", "none"),
        ("rounds from the client", "1", "1"),
        ("between servers", "", f"{mpc.rounds_in_words(shared)} each way"),
    ]
    return [
        "",
        f"both, on the same {encrypted['texts']} texts:",
        *(f"  {name:<{_LEFT}}{left:<{_WIDTH}}{right}".rstrip() for name, left, right in rows),
        f"  ckks: {ckks.LEARNS}; rests on the client's key",
        f"  mpc: {shared['who_learns']}; rests on parties that do not collude",
    ]


def _error(r: dict[str, Any]) -> str:
    return f"{r['max_logit_error']:.1e}, {r['error_bound']:.1e}"


def _secure(r: dict[str, Any]) -> float:
    latency = r["latency_ms"]
    return float(latency["total"] - latency["embed"])
