"""The report over the packaged heads, in Markdown: what was reproduced, beside what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from secure_infer.ckks.plan import DEFAULT_ERROR, DEFAULT_SMUDGING
from secure_infer.distill import evidence, tables, wdbc
from secure_infer.distill.pipeline import LINEAR, QUADRATIC
from secure_infer.heads import Head

_EXPECTED = {
    ("linear", evidence.HARD): 0.712,
    ("linear", evidence.TAUGHT): 0.715,
    ("quadratic", evidence.HARD): 0.729,
    ("quadratic", evidence.TAUGHT): 0.739,
    ("quadratic", evidence.SHIPPED): 0.743,
}
_EXPECTED_TEACHERS = (0.746, 0.752)


def report(heads: Mapping[str, Head]) -> str:
    """What `secure-infer distill --report` writes, from the facts of the heads made, by name."""
    sections = ["# Packaged models", _HEAD]
    if LINEAR in heads and QUADRATIC in heads:
        sections.append(_chapters(heads[LINEAR], heads[QUADRATIC]))
    if wdbc.NAME in heads:
        sections.append(_wdbc(heads[wdbc.NAME]))
    return "\n\n".join(sections) + "\n"


_HEAD = """Written by `secure-infer distill --report FILE.md`; every figure is among the artifacts' facts. The cards beside the
artifacts in `secure_infer/models/` say what each head is for and what it is not for."""


def _chapters(linear: Head, quadratic: Head) -> str:
    facts: dict[str, Any] = linear.facts
    rows = "\n".join(
        f"| {name} | {head.facts['head']['test']['accuracy']:.1%} | {head.facts['head']['test']['macro_f1']:.1%} "
        f"| {head.facts['head']['icd9']['accuracy']:.1%} | {head.facts['head']['test']['calibration_error']:.1%} "
        f"| {head.facts['head']['range']:.1f} | `{head.digest[:12]}` |"
        for name, head in ((LINEAR, linear), (QUADRATIC, quadratic))
    )
    return f"""## ICD-10-CM chapter from diagnosis text

Medical terminology, not clinical notes. {facts["rows"]["test"]:,} test texts, of categories that nothing was trained on;
seed {facts["settings"]["seed"]}.

| head | test accuracy | macro-F1 | ICD-9-CM wording | calibration error | R | digest |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

### Reproduced figures

Expected: an earlier run of the recipe, with standardised inputs. Here: one input scale for all features and
penalties that keep ranges small, mean ± standard deviation over seeds.

| model | learned from | expected test accuracy | here | macro-F1 here |
| --- | --- | --- | --- | --- |
{_reproduced(facts)}

### Does distillation help?

Accuracy on the same test texts, each way averaged over its seeds. Students share settings and epochs; the settings were
chosen for the shipped way, and unlabelled text also means more steps. Nothing was chosen from these figures.

Linear, shipped: {evidence.HARD}.

{tables.ways(facts["evidence"]["linear"])}

{tables.differences(facts["evidence"]["linear"])}

Quadratic, {facts["settings"]["quadratic_units"]} units, shipped: {evidence.SHIPPED}.

{tables.ways(facts["evidence"]["quadratic"])}

{tables.differences(facts["evidence"]["quadratic"])}

### What range costs

Linear heads under several L2 penalties, the shipped one in bold, and the cheapest plan with both sides private that reaches
{DEFAULT_SMUDGING} smudging bits at a logit error of {DEFAULT_ERROR:g}.

{tables.penalties(facts)}"""


def _reproduced(facts: dict[str, Any]) -> str:
    lines = []
    for kind, title in (
        ("linear", "linear"),
        ("quadratic", f"learned quadratic, {facts['settings']['quadratic_units']} units"),
    ):
        for way in facts["evidence"][kind]["ways"]:
            count = len(way["seeds"])
            lines.append(
                f"| {title} | {way['way']} | {_EXPECTED[kind, way['way']]:.1%} "
                f"| {tables.spread(way['accuracy_mean'], way['accuracy_sd'], count)} "
                f"| {tables.spread(way['macro_f1_mean'], way['macro_f1_sd'], count)} |"
            )
    single = {
        key: np.array([entry[key] for entry in facts["single_teachers"]], dtype=np.float64)
        for key in ("accuracy", "macro_f1")
    }
    means = {
        key: tables.spread(float(values.mean()), float(values.std(ddof=len(values) > 1)), len(values))
        for key, values in single.items()
    }
    every = facts["teacher"]["test"]
    lines.append(f"| teacher, one | labels | {_EXPECTED_TEACHERS[0]:.1%} | {means['accuracy']} | {means['macro_f1']} |")
    lines.append(
        f"| teacher, ensemble of {facts['settings']['teachers']} | labels | {_EXPECTED_TEACHERS[1]:.1%} "
        f"| {every['accuracy']:.1%} | {every['macro_f1']:.1%} |"
    )
    return "\n".join(lines)


def _wdbc(head: Head) -> str:
    facts: dict[str, Any] = head.facts
    cross, test, own = facts["cross_validation"], facts["test"], facts["cost"]
    return f"""## WDBC: malignant or benign, from thirty measurements

| | expected | here |
| --- | --- | --- |
| accuracy, {cross["folds"]}-fold cross-validation | 97.7% | {cross["accuracy"]:.1%} |
| accuracy, {test["rows"]} held-out rows | | {test["accuracy"]:.1%} |
| plan | | {own["plan"]}, {own["smudging_bits"]} smudging bits |
| digest | | `{head.digest[:12]}` |"""
