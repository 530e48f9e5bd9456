"""How well a stolen model agrees with the real one, against the queries spent, under each policy on answers.

The thief asks about texts, fits a student to the answers and uses that; both models then see held-out texts, and `agreement`
is the share with the same label. Answers are evaluated in plaintext: encrypted ones are within their bound of them, a
thousandth of a logit. A budget of so many records stops the thief at that column, and an honest caller as well.

    logits        CKKS as it is. Rounding by the client changes nothing: whoever decrypts sees what was there before.
    flood 0.1, 1  CKKS with a coarser flood: Gaussian noise of that deviation on every logit.
    rounded 0.1, 1, label-only
                  within an evaluation between two parties alone.
    no queries    the same students, on as many texts with their true labels: what a thief has anyway.

`honest` is what the policy costs callers: how often the largest answer they get is the model's own.

Students know what a server publishes, the kinds of layers: affine in the features for a linear head, and for one with quadratics
the better of affine and quadratic (kernel ridge regression, its ridge by leave-one-out error: Rifkin and Lippert, "Notes on
Regularized Least Squares", 2007). From labels alone, multinomial regression on the same features. Stronger thieves exist;
the figures are lower bounds on what leaks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from secure_infer import models
from secure_infer.heads import Head
from secure_infer_benchmarks.embeddings import embedded
from secure_infer_client import samples

Floats = NDArray[np.float64]
HEADS = {"linear 384 -> 21": "icd10-chapter-linear", "hidden 384 -> 256 -> 21": "icd10-chapter"}
SEED = 6
RIDGES = 10.0 ** np.arange(-13, 3)
OWN = "no queries, true labels"
COMPONENTS = 512
"""Directions of the features that multinomial regression takes, the largest."""


@dataclass(frozen=True)
class Options:
    """queries: budgets, in records. held_out: texts on which agreement is measured."""

    queries: tuple[int, ...] = (25, 50, 100, 200, 385, 770, 1540)
    held_out: int = 1000

    @property
    def texts(self) -> int:
        return max(self.queries) + self.held_out


@dataclass(frozen=True)
class Policy:
    """What a policy leaves of logits (B, K). labels: of it only the place of the largest counts."""

    name: str
    answer: Callable[[Floats], Floats]
    labels: bool = False


def policies() -> list[Policy]:
    """Those that are compared; noise is seeded."""
    noise = np.random.default_rng(SEED)
    return [
        Policy("logits", lambda logits: logits),
        *(Policy(f"flood {s:g}", lambda logits, s=s: logits + s * noise.normal(size=logits.shape)) for s in (0.1, 1.0)),  # type: ignore[misc]
        *(Policy(f"rounded {s:g}", lambda logits, s=s: np.rint(logits / s) * s) for s in (0.1, 1.0)),  # type: ignore[misc]
        Policy("label-only", lambda logits: one_hot(logits.argmax(axis=1), logits.shape[1]), labels=True),
    ]


def one_hot(labels: NDArray[np.intp], classes: int) -> Floats:
    return np.eye(classes)[labels]


class Features:
    """A kernel's features of n rows: (1 + x·z)^degree, by its eigenvectors."""

    def __init__(self, x: Floats, degree: int) -> None:
        self._x, self._degree = x, degree
        values, vectors = np.linalg.eigh(self._kernel(x))
        kept = values > 1e-13 * values[-1]
        self.values, self.vectors = values[kept][::-1], vectors[:, kept][:, ::-1]

    def _kernel(self, z: Floats) -> Floats:
        return np.asarray((1 + z @ self._x.T) ** self._degree)

    def of(self, z: Floats) -> Floats:
        """(B, features), the largest first; those of the n rows are vectors · sqrt(values)."""
        return np.asarray(self._kernel(z) @ (self.vectors / np.sqrt(self.values)))

    def ridge(self, answers: Floats) -> tuple[Floats, float]:
        """(coefficients of the features, leave-one-out mean squared error) of the best ridge."""
        centred, best = answers - answers.mean(axis=0), (np.zeros(0), np.inf)
        inner, squares = self.vectors.T @ centred, self.vectors**2
        # Outside the features nothing is fitted; what rounding leaves there is none where they span all rows.
        apart = centred - self.vectors @ inner if len(self.values) < len(centred) else np.zeros_like(centred)
        alone = 1 - squares.sum(axis=1) if len(self.values) < len(centred) else np.zeros(len(centred))
        for ridge in RIDGES * self.values[0]:
            left = ridge / (self.values + ridge)
            residuals = self.vectors @ (left[:, None] * inner) + apart
            error = float(np.mean((residuals / (squares @ left + alone)[:, None]) ** 2))
            if error < best[1]:
                best = (np.sqrt(self.values)[:, None] / (self.values + ridge)[:, None] * inner, error)
        return best

    def multinomial(self, labels: Floats, steps: int = 150) -> Floats:
        """Coefficients of the largest features, by Nesterov's accelerated gradient on penalised cross entropy."""
        rows = (self.vectors * np.sqrt(self.values))[:, :COMPONENTS]
        rows = rows / np.sqrt(np.mean(np.sum(rows**2, axis=1)))
        penalty = 1e-4
        rate = 1.0 / (0.5 * np.linalg.norm(rows, 2) ** 2 / len(rows) + penalty)
        found = ahead = np.zeros((rows.shape[1], labels.shape[1]))
        for step in range(steps):
            scores = rows @ ahead
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            gradient = rows.T @ (scores / scores.sum(axis=1, keepdims=True) - labels) / len(rows) + penalty * ahead
            found, before = ahead - rate * gradient, found
            ahead = found + step / (step + 3) * (found - before)
        return found


def agreement(found: Floats, truth: NDArray[np.intp]) -> float:
    return float((found.argmax(axis=1) == truth).mean())


def stolen(students: list[Features], held_out: list[Floats], answers: Floats, *, labels: bool) -> Floats:
    """What the student that explains the answers best gives to held-out rows. held_out: their features, by student."""
    fits = [student.ridge(answers) for student in students]
    best = min(range(len(students)), key=lambda i: fits[i][1])
    if labels:
        found = students[best].multinomial(answers)
        return np.asarray(held_out[best][:, : len(found)] @ found)
    return np.asarray(held_out[best] @ fits[best][0] + answers.mean(axis=0))


def measure(head: Head, x: Floats, labels: NDArray[np.intp], options: Options, bar: tqdm[Any]) -> dict[str, Any]:
    """Agreement by policy and queries. x: rows (texts, d), the held-out ones last; labels: their true classes (texts,)."""
    logits, held_out = head.evaluate(x), x[-options.held_out :]
    truth = logits[-options.held_out :].argmax(axis=1)
    degrees = (1,) if head.as_linear() is not None else (1, 2)
    given = {policy.name: (policy.answer(logits), policy.labels) for policy in policies()}
    found: dict[str, Any] = {
        name: {"honest": agreement(answers, logits.argmax(axis=1)), "agreement": {}}
        for name, (answers, _) in given.items()
    }
    given[OWN] = one_hot(labels, head.outputs), True
    found[OWN] = {"honest": None, "agreement": {}}
    for count in options.queries:
        students = [Features(x[:count], degree) for degree in degrees]
        seen = [student.of(held_out) for student in students]
        for name, (answers, only_labels) in given.items():
            theirs = stolen(students, seen, answers[:count], labels=only_labels)
            found[name]["agreement"][str(count)] = agreement(theirs, truth)
        bar.update(count)
    return found


def labelled(options: Options) -> tuple[Floats, list[str]]:
    """(rows (texts, 384), true labels) of packaged texts in a fixed random order."""
    packaged = samples.load()
    chosen = [packaged[i] for i in np.random.default_rng(SEED).permutation(len(packaged))[: options.texts]]
    return embedded([sample.text for sample in chosen]), [sample.label for sample in chosen]


def run(options: Options) -> dict[str, Any]:
    """The report: for each head and policy, agreement by queries spent."""
    started = perf_counter()
    x, names = labelled(options)
    heads = {title: Head.load(models.path() / f"{name}.head") for title, name in HEADS.items()}
    found = {}
    with tqdm(total=len(heads) * sum(options.queries), desc="stealing", leave=False, disable=None) as bar:
        for title, head in heads.items():
            labels = np.array([head.labels.index(name) for name in names])
            found[title] = measure(head, head.contract.check(x), labels, options, bar)
    return {
        "queries": list(options.queries),
        "held_out_texts": options.held_out,
        "seed": SEED,
        "heads": found,
        "seconds": perf_counter() - started,
    }


def suite(quick: bool) -> dict[str, Any]:
    """The published queries, or few of them."""
    return run(QUICK if quick else Options())


def table(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = []
    for title, found in report["heads"].items():
        lines.append(f"{title + ': queries':<28}{'honest':>8}" + "".join(f"{count:>7}" for count in report["queries"]))
        for policy, row in found.items():
            honest = "" if row["honest"] is None else f"{row['honest']:.1%}"
            shares = "".join(f"{row['agreement'][str(count)]:>7.1%}" for count in report["queries"])
            lines.append(f"  {policy:<26}{honest:>8}{shares}")
    lines.append(f"agreement of the stolen model on {report['held_out_texts']} held-out texts")
    return "\n".join(lines) + "\n"


QUICK = Options(queries=(50, 200, 385), held_out=300)
