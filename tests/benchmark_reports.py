"""Reports that look like measured ones and are not: every suite, drawn from a seed, no measuring."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from secure_infer_benchmarks import figures

MACHINE = {
    "processor": "Example CPU @ 2.10GHz",
    "cores": 2,
    "memory_bytes": 8_000_000_000,
    "system": "Linux x86_64",
    "python": "3.11.9",
    "versions": {"secure-infer": "0.1.0", "tenseal": "0.3.18", "numpy": "2.4.6"},
    "threads": "1",
    "load_average_before": 0.2,
    "load_average_after": 0.9,
}
LATTICE = {
    "input_private": True,
    "model_private": True,
    "bits": 128,
    "smudging_bits": 18,
    "model_hidden_from": "clients",
    "rests_on": "ring-LWE",
}
SHARED = {
    "input_private": True,
    "model_private": True,
    "bits": None,
    "smudging_bits": None,
    "model_hidden_from": "clients and each party",
    "rests_on": "three operators, no two of whom collude, who follow the protocol",
}
OPEN = {"input_private": False, "model_private": True, "bits": None, "smudging_bits": None, "rests_on": "nothing"}
SHAPES = {"icd10-chapter-linear": "384 -> 21", "icd10-chapter": "384 -> 256 -> 21"}
LINKS = (("lan", 1000, 0.5), ("wan", 100, 20.0), ("mobile", 20, 60.0))

# head, scheme, way, its plan, call ms, bytes up, down, of keys, between parties, rounds
WAYS: tuple[tuple[Any, ...], ...] = (
    ("icd10-chapter-linear", "ckks", "ckks", "coefficient N=4096 [60]", 6.1, 30_934, 43_174, 30_784, 0, 0),
    ("icd10-chapter-linear", "mpc", "mpc", "both hold the weights", 4.4, 7_120, 1_480, 0, 336, 1),
    ("icd10-chapter", "ckks", "ckks", "slots N=8192 [58,58,32]+60", 52.0, 467_136, 28_749, 3_871_936, 0, 0),
    ("icd10-chapter", "ckks", "ckks, few bytes", "slots N=8192 [56,56,32]+60", 61.0, 147_520, 28_749, 4_072_768, 0, 0),
    ("icd10-chapter", "mpc", "mpc", "both hold the weights", 5.6, 7_120, 1_480, 0, 3_080, 1),
    ("icd10-chapter", "mpc", "mpc, shared weights, label only", "shared weights", 8.9, 7_120, 410, 0, 61_440, 21),
)


class Drawn:
    """Samples around a typical value, a few of them late, as a busy machine gives them."""

    def __init__(self, seed: int) -> None:
        self.drawn = np.random.default_rng(seed)

    def samples(self, typical: float, count: int = 30, spread: float = 0.05) -> list[float]:
        late = self.drawn.random(count) < 0.05
        return [float(x) for x in typical * np.exp(self.drawn.normal(0, spread, count)) * np.where(late, 1.6, 1.0)]

    def figure(self, typical: float, count: int = 30, unit: str = "ms", spread: float = 0.05) -> figures.Figure:
        return figures.figure(self.samples(typical, count, spread), unit)


def report(seed: int = 0, *, slower: float = 1.0, suites: tuple[str, ...] | None = None) -> dict[str, Any]:
    """All suites, or those named. slower: factor on the calls of every encrypted row."""
    drawn = Drawn(seed)
    made = {name: suite(drawn, slower) for name, suite in SUITES.items() if suites is None or name in suites}
    return {
        "format": figures.FORMAT,
        "command": "secure-infer bench --suite full",
        "date": "2026-11-22",
        "machine": MACHINE,
        "suites": {name: {"seconds": 61.0, **suite} for name, suite in made.items()},
    }


def cost(drawn: Drawn, slower: float) -> figures.Suite:
    rows: list[figures.Row] = []
    for head, shape in SHAPES.items():
        plain = drawn.samples(2.4)
        rows.append(
            {
                "id": f"{head}/plaintext",
                "head": head,
                "shape": shape,
                "scheme": "plaintext",
                "plan": "plaintext call of the same server",
                "security": OPEN,
                "figures": {"call_ms": figures.figure(plain), "ratio": figures.ratio(plain, plain)},
                "counts": {"bytes_up": 1_610, "bytes_down": 240},
            }
        )
        for of, scheme, way, described, ms, up, down, keys, link, rounds in WAYS:
            if of != head:
                continue
            stages = {"encrypt_ms": 0.14, "network_ms": 0.2, "server_ms": 0.6, "decrypt_ms": 0.06}
            parts = {name: drawn.samples(slower * ms * share) for name, share in stages.items()}
            calls = [sum(stage) for stage in zip(*parts.values(), strict=True)]
            counts = {"bytes_up": up, "bytes_down": down, "key_bytes": keys}
            counts |= {"link_bytes": link, "rounds": rounds} if scheme == "mpc" else {}
            if "label" not in way:
                counts |= {"max_logit_error": 4.9e-4 if scheme == "ckks" else 2e-5, "error_bound": 9.5e-4}
            rows.append(
                {
                    "id": f"{head}/{way}",
                    "head": head,
                    "shape": shape,
                    "scheme": scheme,
                    "way": way,
                    "plan": described,
                    "security": LATTICE if scheme == "ckks" else SHARED,
                    "figures": {
                        "call_ms": figures.figure(calls),
                        "ratio": figures.ratio(calls, plain),
                        **{name: figures.figure(part) for name, part in parts.items()},
                        "server_load_ms": drawn.figure(ms * 0.1),
                        "server_evaluate_ms": drawn.figure(ms * 0.5),
                    },
                    "counts": {**counts, "agreement": 1.0},
                }
            )
    rows.append(
        {"id": "relu-384-64-10/ckks", "head": "relu-384-64-10", "scheme": "ckks", "reason": "ReLU is no polynomial"}
    )
    return {"rows": rows, "links": "loopback, mutual TLS 1.3", "memory_bytes": {"server": 410_000_000}}


def plans(drawn: Drawn, slower: float) -> figures.Suite:
    told = (
        ("published", "384 -> 10", 0.67, 14_400, 12_324, 14_400, 20),
        ("published", "ICD-10 384 -> 256 -> 21", 37.6, 467_136, 28_749, 3_871_936, 18),
        ("smudging", "384 -> 10, s = 30", 0.9, 18_400, 14_324, 18_400, 30),
    )
    rows: list[figures.Row] = [
        {
            "id": name,
            "group": group,
            "scheme": "ckks",
            "plan": "coefficient N=2048 [53]",
            "security": {**LATTICE, "smudging_bits": bits},
            "figures": {"server_ms": drawn.figure(ms * slower), "encrypt_ms": drawn.figure(0.4)},
            "counts": {
                "predicted_server_ms": 0.9 * ms,
                "bytes_up": up,
                "bytes_down": down,
                "key_bytes": keys,
                "error_bound": 9.5e-4,
                "max_logit_error": 3e-4,
            },
        }
        for group, name, ms, up, down, keys, bits in told
    ]
    return {"rows": [*rows, {"id": "a head, s = 40", "group": "smudging", "reason": "no plan fits"}]}


def batches(drawn: Drawn, slower: float) -> figures.Suite:
    rows = [
        {
            "id": f"{head}/ckks, s = {s}/full",
            "head": head,
            "shape": SHAPES[head],
            "scheme": "ckks",
            "plan": "batch",
            "security": {**LATTICE, "smudging_bits": s},
            "figures": {
                "wall_ms_a_record": drawn.figure(slower * ms, 5),
                "server_ms_a_record": drawn.figure(slower * 0.8 * ms, 5),
            },
            "counts": {
                "records": 4096,
                "bytes_up_a_record": 1_250,
                "bytes_down_a_record": 192,
                "max_logit_error": 2e-4,
            },
        }
        for head, s, ms in (
            ("icd10-chapter-linear", 2, 0.11),
            ("icd10-chapter-linear", 20, 0.13),
            ("icd10-chapter", 2, 1.1),
            ("icd10-chapter", 20, 1.6),
        )
    ]
    return {"rows": rows}


def accuracy(drawn: Drawn, slower: float) -> figures.Suite:
    sets = {
        "icd10": (
            "ICD-10-CM terms held out (terminology, not clinical notes)",
            5694,
            {"icd10-chapter-linear": 0.720, "icd10-chapter": 0.738},
        ),
        "icd9": ("ICD-9-CM wording, shifted", 2591, {"icd10-chapter-linear": 0.707, "icd10-chapter": 0.721}),
        "wdbc": ("Wisconsin breast cancer, test", 143, {"wdbc": 0.979}),
    }
    rows = []
    for name, (described, texts, heads) in sets.items():
        for head, right in heads.items():
            for scheme, error in (("ckks", 9.5e-4), ("mpc", 8e-4)):
                edges = np.linspace(0, 1, 11)
                at = [float((a + b) / 2) for a, b in pairwise(edges)]
                seen = [float(np.clip(middle + drawn.drawn.normal(0, 0.02), 0, 1)) for middle in at]
                labels = [chr(ord("A") + number) + "00-" + chr(ord("A") + number) + "99" for number in range(21)]
                per = drawn.drawn.uniform(0.4, 0.9, 21)
                rows.append(
                    {
                        "id": f"{name}/{head}/{scheme}",
                        "set": name,
                        "set_described": described,
                        "head": head,
                        "scheme": scheme,
                        "way": scheme,
                        "counts": {
                            "texts": texts,
                            "accuracy": right,
                            "macro_f1": right - 0.034,
                            "plaintext_accuracy": right,
                            "plaintext_macro_f1": right - 0.034,
                            "agreement": 1 - 1 / texts if scheme == "mpc" and texts > 5000 else 1.0,
                            "max_logit_error": error / 2,
                            "error_bound": error,
                            "calibration_error": 0.016,
                            "plaintext_calibration_error": 0.016,
                        },
                        "reliability": [
                            {"from": a, "to": b, "texts": texts // 10, "confidence": c, "accuracy": s}
                            for a, b, c, s in zip(edges, edges[1:], at, seen, strict=False)
                        ],
                        "logit_error_quantiles": {
                            q: error * share
                            for q, share in (("0.5", 0.05), ("0.9", 0.12), ("0.99", 0.2), ("0.999", 0.28), ("1", 0.5))
                        },
                        "chapters": [
                            {"label": label, "texts": 271, "precision": f, "recall": f, "f1": f, "plaintext_f1": f}
                            for label, f in zip(labels, map(float, per), strict=True)
                        ],
                    }
                )
    alone = rows[0] | {
        "id": f"icd10-drawn/{rows[0]['head']}/ckks/one by one",
        "set": "icd10-drawn",
        "way": "ckks/one by one",
    }
    return {"rows": [*rows, alone | {"set_described": "ICD-10-CM titles, a draw"}], "sets": {"icd10": "All of them."}}


def network(drawn: Drawn, slower: float) -> figures.Suite:
    rows, winners = [], []
    for link, megabits, round_trip in LINKS:
        for head in SHAPES:
            best: list[tuple[float, float, str]] = []
            plain = drawn.samples(2.4 + round_trip, 12)
            for of, scheme, way, described, ms, up, down, _, between, rounds in [
                (head, "plaintext", "plaintext", "–", 2.4, 1_610, 240, 0, 0, 0),
                *WAYS,
            ]:
                if of != head:
                    continue
                predicted = ms + round_trip * (1 + rounds / 2) + 8e-3 * (up + down) / megabits
                calls = plain if scheme == "plaintext" else drawn.samples(slower * 1.08 * predicted, 12)
                row = {
                    "id": f"{link}/{head}/{way}",
                    "link": {"name": link, "megabits": megabits, "round_trip_ms": round_trip},
                    "head": head,
                    "scheme": scheme,
                    "plan": described,
                    "figures": {"ratio": figures.ratio(calls, plain), "call_ms": figures.figure(calls)},
                    "counts": {"predicted_ms": predicted, "bytes_up": up, "bytes_down": down},
                }
                row["counts"] |= {"link_bytes": between, "rounds": rounds} if scheme == "mpc" else {}
                rows.append(row)
                if scheme != "plaintext":
                    best.append((row["figures"]["call_ms"]["median"], predicted, row["id"]))
            won, told = min(best), min(best, key=lambda one: one[1])
            winners.append(
                {"link": link, "head": head, "measured": won[2], "predicted": told[2], "regret": told[0] / won[0]}
            )
    exact = {"late_ms": {"median": 0.1}, "megabits": 99.1, "megabits_asked": 100}
    forwarder = {"call_overhead_ms": drawn.figure(0.5), "precision": {"wan": exact}}
    return {"rows": rows, "winners": winners, "forwarder": forwarder}


def scaling(drawn: Drawn, slower: float) -> figures.Suite:
    rows: list[figures.Row] = []
    axes = {"d": (96, 192, 384, 768), "h": (32, 64, 128, 256), "K": (2, 10, 21, 50), "batch": (1, 16, 256, 2048)}
    for axis, values in axes.items():
        for scheme, name, unit in (("ckks", "server_ms", 0.05), ("mpc", "computing_ms", 0.008)):
            for value in values:
                predicted = 1 + unit * value
                rows.append(
                    {
                        "id": f"{axis}={value}/{scheme}",
                        "axis": axis,
                        "value": value,
                        "scheme": scheme,
                        "plan": "slots" if scheme == "ckks" else "shared weights",
                        "predicts": name,
                        "figures": {name: drawn.figure(slower * 1.1 * predicted, 9)},
                        "counts": {"predicted_ms": predicted, "bytes_up": 1000 * value, "bytes_down": 28_749},
                    }
                )
    common = {"axis": "clients", "scheme": "ckks", "plan": "coefficient", "predicts": "records_a_second"}
    for clients in (1, 2, 4, 8):
        made = drawn.samples(min(clients, 2) * 90 / slower, 9)
        told = {
            "records_a_second": figures.figure(made, "1/s", "higher"),
            "call_ms": drawn.figure(6.0 * clients, 9),
        }
        counts = {"predicted_records_a_second": 100 * min(clients, 2), "predicted_ms": 10.0}
        rows.append({"id": f"clients={clients}/ckks", "value": clients, **common, "figures": told, "counts": counts})
    first, opened = {"first_call_ms": drawn.figure(90, 8)}, {"memory_bytes": 5_100_000, "key_bytes": 2_700_288}
    session = {"axis": "sessions", "value": 8, "scheme": "ckks", "plan": "slots", "figures": first, "counts": opened}
    return {"rows": [*rows, {"id": "sessions=8/ckks", **session}]}


PEERS = """
linear-384-10    | secure-infer | coefficient         | 0.67 | 14400   | 12324   | 14400     | hidden
linear-384-10    | tenseal_mm   | CKKSVector.mm       | 96   | 334000  | 223000  | 31000000  |
linear-384-10    | concrete_ml  | quantised to 7 bits | 9    | 3100000 | 1300000 | 900000    |
square-384-64-10 | secure-infer | slots               | 22.5 | 405696  | 24606   | 2700288   | hidden
square-384-64-10 | secure-infer | slots, few bytes    | 28.3 | 135232  | 24606   | 3880320   | hidden
square-384-64-10 | openfhe      | diagonals, hoisted  | 310  | 790000  | 264000  | 58000000  |
square-384-64-10 | desilofhe    | diagonals           | 18   | 1050000 | 525000  | 410000000 |
"""
"""Workload, who, how written, server ms, bytes up, down, of keys, whether the model is hidden."""


def peers(drawn: Drawn, slower: float) -> figures.Suite:
    rows: list[figures.Row] = []
    for line in PEERS.strip().splitlines():
        workload, who, variant, ms, up, down, keys, hidden = (cell.strip() for cell in line.split("|"))
        security = {**LATTICE, "model_private": bool(hidden), "smudging_bits": 20 if hidden else None}
        factor = slower if hidden else 1.0
        rows.append(
            {
                "id": f"{workload}/{who}/{variant}",
                "workload": workload,
                "shape": "384 -> 64 -> 10" if "64" in workload else "384 -> 10",
                "who": who,
                "ours": who == "secure-infer",
                "variant": variant,
                "version": "1.2.3",
                "parameters": "N=8192 [53,53,20]+60",
                "security": security,
                "note": "",
                "figures": {"server_ms": drawn.figure(float(ms) * factor), "client_ms": drawn.figure(3.0)},
                "counts": {
                    "bytes_up": int(up),
                    "bytes_down": int(down),
                    "key_bytes": int(keys),
                    "max_logit_error": 3e-4,
                    "agreement": 1.0,
                },
            }
        )
    common = {"workload": "square-384-64-10", "shape": "384 -> 64 -> 10", "ours": False}
    absent = {
        "who": "helayers",
        "note": "licence: evaluation only",
        "reason": "no package for this Python on the index",
    }
    return {"rows": [*rows, {"id": "square-384-64-10/helayers", **common, **absent}]}


def mnist(drawn: Drawn, slower: float) -> figures.Suite:
    common = {"workload": "mnist", "shape": "784 -> 128 -> 64 -> 10", "note": ""}
    ours = {
        "id": "ours, 784-128-64-10/both-private",
        "who": "secure-infer",
        "ours": True,
        "variant": "both-private",
        "version": "0.1.0",
        "parameters": "N=16384",
        "security": LATTICE,
        "figures": {"server_ms": drawn.figure(310 * slower, 9), "client_ms": drawn.figure(14, 9)},
        "counts": {"bytes_up": 290_000, "bytes_down": 35_000, "key_bytes": 22_000_000, "max_logit_error": 2e-3},
    }
    published = {
        "id": "published, 784-128-64-10",
        "who": "HomomorphicEncryption.org reference",
        "ours": False,
        "published": True,
        "variant": "as published",
        "security": {**LATTICE, "model_private": False, "smudging_bits": None},
        "figures": {"server_ms": figures.figure([6500, 9750, 13000])},
        "counts": {"bytes_up": 359_000, "key_bytes": 1_000_000_000},
    }
    return {"rows": [common | ours, common | published], "data": "random weights and inputs", "accuracy": None}


def start(drawn: Drawn, slower: float) -> figures.Suite:
    rows = [
        {
            "id": f"{head}/ckks, ring {ring}",
            "head": head,
            "scheme": "ckks",
            "figures": {
                name: drawn.figure(typical * factor, 9)
                for name, typical in (("import_ms", 310), ("open_ms", 60), ("first_call_ms", 90 * slower))
            },
            "counts": {"key_bytes": 0 if ring == "warm" else 3_871_936},
        }
        for head, factor in (("icd10-chapter-linear", 1.0), ("icd10-chapter", 1.3))
        for ring in ("none", "cold", "warm")
    ]
    return {"rows": rows}


def throughput(drawn: Drawn, slower: float) -> figures.Suite:
    rows = [
        {
            "id": f"{workers} worker" + "s" * (workers > 1),
            "scheme": "ckks",
            "figures": {
                "answers_a_second": figures.figure(drawn.samples(rate / slower, 5), "answers/s", "higher"),
                "call_ms": drawn.figure(8000 / rate, 200),
            },
            "counts": {"bytes_up": 405_696, "bytes_down": 24_606},
        }
        for workers, rate in ((1, 41.0), (2, 76.0))
    ]
    return {"rows": rows}


def gate(drawn: Drawn, slower: float) -> figures.Suite:
    rows = [
        {
            "id": name,
            "scheme": "ckks",
            "figures": {
                "call_ratio": drawn.figure(ratio, 50),
                "processor_ratio": drawn.figure(ratio, 50),
                "call_ms": drawn.figure(1.5 * ratio * slower, 50),
            },
            "counts": {"gate_alone_us": alone},
        }
        for name, ratio, alone in (("open", 1.0, 2.2), ("callers, budgets, audit", 1.07, 29.8))
    ]
    return {"calls": 50, "rows": rows}


SUITES = {
    "cost": cost,
    "plans": plans,
    "batches": batches,
    "accuracy": accuracy,
    "network": network,
    "scaling": scaling,
    "peers": peers,
    "mnist": mnist,
    "start": start,
    "throughput": throughput,
    "gate": gate,
}
