"""The MNIST workload of the HomomorphicEncryption.org benchmarking suite, fc 784-128-64-10, beside its published figures.

Under CKKS squares stand for ReLU, in a network trained with them; by secret sharing the network has its ReLU. `data` says
where the images come from, `published` what the reference's figures are worth. Without images: random rows, and no word of
accuracy. `python -m secure_infer_benchmarks.mnist --install` fetches them, `train` makes the heads anew.
"""

from __future__ import annotations

from secure_infer_benchmarks.figures import Suite
from secure_infer_benchmarks.mnist import encrypted, published, samples, shared
from secure_infer_benchmarks.mnist.table import table

__all__ = ["measure", "table"]

QUICK_IMAGES = 3


def measure(quick: bool) -> Suite:
    """Rows, published ones first; data: what was asked; accuracy: of the heads in plaintext, as they were trained.

    quick: the two rows with few bytes, over a few images; nothing by secret sharing and no batch.
    """
    described, square = samples.square_head()
    asked = samples.Samples.of(square, 64 if quick else 10_000)
    cases = encrypted.CASES[:2] if quick else encrypted.CASES
    rows = [*published.rows(), *encrypted.measure(square, asked, cases, QUICK_IMAGES if quick else None)]
    relu = samples.head("relu")
    if not quick:
        rows.append(encrypted.batch(square, asked, repeats=2))
        if relu is not None:
            rows += shared.measure(relu, samples.Samples.of(relu, 1000), images=300)
    trained = {"square": square, "relu": relu}
    return {
        "rows": rows,
        "data": asked.described,
        "heads": described,
        "accuracy": {
            name: head.facts["accuracy"] for name, head in trained.items() if head and "accuracy" in head.facts
        },
    }
