"""Do explanations mean something? The deletion test (Samek et al., "Evaluating the visualization of what a deep neural network
has learned", 2017): words are taken out of a text, those that speak most for its label first, and the logit should fall faster
than when they are taken out in random order.

    fallen(order) = mean over k = 1 .. n - 1 of  logit(text) - logit(text without its first k words in that order)

The first step of occlusion wins by its definition; the others do not, since words are taken out together. A text counts for
the explanation when its `fallen` exceeds the mean over random orders; by chance half of them would. `p` is the one-sided sign
test's. Explanations by occlusion are asked of a real server under encryption, what is left of a text after deletions is
evaluated in plaintext.
"""

from __future__ import annotations

import json
import math
import random
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from secure_infer import models
from secure_infer.heads import Head
from secure_infer_client import Client, Explanation, samples
from secure_infer_client.local_server import LocalServer
from secure_infer_client.text.embed import MiniLM

LEAST_WORDS, MOST_WORDS = 5, 15
SEED = 11


@dataclass(frozen=True)
class Row:
    """fallen, by_chance: mean logit lost over the deletions, in the explanation's order and in random ones. better: texts
    where the first exceeds the second. p: of that many or more by chance."""

    model: str
    method: str
    units: str
    texts: int
    fallen: float
    by_chance: float
    better: int
    p: float


def sign_test(better: int, of: int) -> float:
    """One-sided: the chance of that many heads or more among fair coins.

    3 of 4  ->  (4 + 1) / 16
    """
    return float(sum(math.comb(of, k) for k in range(better, of + 1)) / 2**of)


class Deletion:
    """What a head's logits lose when words are taken out."""

    def __init__(self, head: Head, embedder: MiniLM, random_orders: int = 8, seed: int = SEED) -> None:
        self._head, self._embedder, self._random = head, embedder, random.Random(seed)
        self._random_orders = random_orders

    def fallen(self, explanation: Explanation, orders: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """One figure an order of deletions."""
        words = explanation.words
        left = [
            " ".join(word for place, word in enumerate(words) if place not in set(order[:k]))
            for order in orders
            for k in range(1, len(words))
        ]
        logits = self._head.evaluate(self._embedder([" ".join(words), *left]).astype(np.float64))
        scores = logits[:, self._head.labels.index(explanation.label)]
        return np.asarray((scores[0] - scores[1:]).reshape(len(orders), -1).mean(axis=1))

    def compared(self, explanation: Explanation) -> tuple[float, float]:
        """(in the explanation's order, mean over random orders)."""
        places = list(range(len(explanation.words)))
        orders = [explanation.ranked(), *(self._random.sample(places, len(places)) for _ in range(self._random_orders))]
        found = self.fallen(explanation, orders)
        return float(found[0]), float(found[1:].mean())


def texts(count: int) -> list[str]:
    """Held-out texts of some words, drawn as published."""
    drawn = (sample.text for sample in samples.draw(20 * count))
    return [text for text in drawn if LEAST_WORDS <= len(text.split()) <= MOST_WORDS][:count]


def row(name: str, method: str, units: str, deletion: Deletion, explanations: list[Explanation]) -> Row:
    compared = np.array([deletion.compared(each) for each in explanations])
    better = int((compared[:, 0] > compared[:, 1]).sum())
    mean = compared.mean(axis=0)
    return Row(
        name, method, units, len(compared), float(mean[0]), float(mean[1]), better, sign_test(better, len(compared))
    )


def measure(count: int = 200) -> list[Row]:
    """Rows for both packaged text heads, `count` texts each; takes a minute or two."""
    embedder, chosen, rows = MiniLM(), texts(count), []
    with LocalServer(models.path()) as server:
        for name in ("icd10-chapter-linear", "icd10-chapter"):
            head = Head.load(models.path() / f"{name}.head")
            deletion = Deletion(head, embedder)
            with Client(server.address, model=name, timeout=120) as client:
                methods = {"occlusion": None} | ({"exact": head} if len(head.layers) == 1 else {})
                for method, given in methods.items():
                    for units in ("words", "phrases"):
                        shown = tqdm(chosen, desc=f"{name}, {method} of {units}", leave=False, disable=None)
                        found = [client.explain(text, units=units, published=given) for text in shown]
                        several = [each for each in found if len(each.words) > 2]
                        rows.append(row(name, method, units, deletion, several))
    return rows


def table(rows: list[Row]) -> list[str]:
    found = [f"{'':<40}{'texts':>6}{'fallen':>9}{'by chance':>11}{'better':>8}{'p':>10}"]
    for each in rows:
        name = f"{each.model}, {each.method} of {each.units}"
        share = each.better / each.texts
        found.append(f"{name:<40}{each.texts:>6}{each.fallen:>9.3f}{each.by_chance:>11.3f}{share:>8.0%}{each.p:>10.1e}")
    return found


def run(arguments: list[str]) -> int:
    """`python -m secure_infer_benchmarks.explanations [--texts N] [--json]`."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--texts", type=int, default=200, metavar="N", help="texts a row (200)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    rows = measure(options.texts)
    found: dict[str, Any] = {"suite": "explanations", "rows": [asdict(each) for each in rows]}
    sys.stdout.write((json.dumps(found) if options.json else "\n".join(table(rows))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
