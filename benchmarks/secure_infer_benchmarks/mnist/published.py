"""What the suite publishes of its own reference implementation (OpenFHE, on its authors' machines), as rows.

Two of its builds are public, and the figures that are quoted together come from both: few bytes from the first, the
quickest server from the second. Sizes are as printed there, K, M and G taken for powers of ten, to our disadvantage.
"""

from __future__ import annotations

from typing import Any

from secure_infer_benchmarks.figures import Row, figure

WORKLOAD = "MNIST, one image"
SHAPE = "784 -> 128 -> 64 -> 10"
FIRST, SECOND = "published reference, 2025", "published reference, 2026-02-20"
_WHO = "reference of the HomomorphicEncryption.org benchmarking suite"
_SITE = "github.com/fhe-benchmarking/ml-inference"


def rows() -> list[Row]:
    """The reference's rows; `published` is true in them, and only there."""
    return [
        {
            "id": FIRST,
            "workload": WORKLOAD,
            "shape": "1024 -> 1024 -> 1024, ReLU by polynomials",
            "who": _WHO,
            "ours": False,
            "published": True,
            "source": f"{_SITE}, README, the example run with OpenFHE 1.3.1, and submission/src/client_key_generation.cpp",
            "variant": "CKKS, compiled by HEIR",
            "version": "OpenFHE 1.3.1",
            "parameters": "N=2048, depth 9, security level not set",
            "security": _security(None, "nothing that is stated: N=2048 allows 53 bits of modulus at 128-bit security"),
            "note": "two wider layers, not 128 and 64 units; its parameters are far below 128-bit security",
            "figures": {"server_ms": figure([13302.7, 13813.8]), "client_ms": figure([48.1 + 172.9, 99.8 + 121.9])},
            "counts": {"bytes_up": 358_800, "bytes_down": 69_600, "key_bytes": 1_400_000_000},
        },
        {
            "id": SECOND,
            "workload": WORKLOAD,
            "shape": SHAPE,
            "who": _WHO,
            "ours": False,
            "published": True,
            "source": "fhe-benchmarking.github.io, ml-inference/Single.html",
            "variant": "CKKS",
            "version": "OpenFHE 1.4.0",
            "parameters": "not stated; the suite demands 128 bits",
            "security": _security(128, "ring-LWE, as the suite demands"),
            "note": "the server's own 6.48 s; the harness, which includes loading keys, says 7.63 s",
            "figures": {"server_ms": figure([6480.0]), "client_ms": figure([92.47 + 83.93])},
            "counts": {"bytes_up": 5_000_000, "bytes_down": 1_000_000, "key_bytes": 1_000_000_000},
        },
    ]


def _security(bits: int | None, rests_on: str) -> dict[str, Any]:
    return {
        "input_private": True,
        "model_private": False,
        "bits": bits,
        "smudging_bits": None,
        "rests_on": rests_on,
    }


def beside(counts: dict[str, Any], server_ms: float) -> dict[str, dict[str, float]]:
    """By the id of a published row: how many times as fast, and what parts of its bytes.

    >>> beside({"bytes_up": 358_800, "key_bytes": 14_000_000}, 1000.0)[FIRST]
    {'speed_up': 13.6, 'bytes_up_share': 1.0, 'key_share': 0.01}
    """
    found = {}
    for row in rows():
        theirs = row["counts"]
        found[row["id"]] = {
            "speed_up": _digits(row["figures"]["server_ms"]["median"] / server_ms),
            "bytes_up_share": _digits(counts["bytes_up"] / theirs["bytes_up"]),
            "key_share": _digits(counts["key_bytes"] / theirs["key_bytes"]),
        }
    return found


def _digits(value: float) -> float:
    return float(f"{value:.3g}")
