"""`secure-infer share-model`: split a head into two files, of which neither says anything of the weights by itself.

For the model's owner: give each file to one party, over a way that the other cannot see, and keep or destroy the head.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from secure_infer.errors import InvalidHead, SettingsError
from secure_infer.heads import Head
from secure_infer.mpc import sharefile
from secure_infer.mpc.compiler import ERROR_EXPECTED
from secure_infer.mpc.program import Answers, Comparisons


def run(arguments: list[str]) -> int:
    """Write DIR/party-0/NAME.share and DIR/party-1/NAME.share; prints their paths and what they have in common."""
    parser = argparse.ArgumentParser("secure-infer share-model", description=__doc__)
    parser.add_argument("head", type=Path, metavar="FILE.head")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where party-0/ and party-1/ are made")
    parser.add_argument(
        "--answers", choices=list(Answers), default=Answers.LOGITS, help="what clients learn; logits by default"
    )
    parser.add_argument(
        "--comparisons",
        choices=list(Comparisons),
        default=Comparisons.TABLES,
        help="how signs are found: one-time truth tables, or CrypTen's protocols (extra mpc)",
    )
    parser.add_argument("--error", type=float, metavar="BOUND", help="wanted bound on the logit error; 1e-3 by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.error is not None and not 0 < options.error < 1e6:
        raise SettingsError(f"--error: expected {ERROR_EXPECTED}, got {options.error}")
    if options.head.suffix == sharefile.SUFFIX:
        raise InvalidHead(f"{options.head.name} is one half made by share-model; expected a .head")
    head = Head.load(options.head)
    directories = [options.out / f"party-{party}" for party in (0, 1)]
    targets = [directory / f"{options.head.stem}{sharefile.SUFFIX}" for directory in directories]
    present = [str(target) for target in targets if target.exists()]
    if present:
        raise SettingsError(f"--out: {present[0]} is there already; nothing was overwritten")
    try:
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise SettingsError(f"--out: {options.out} cannot be made ({problem.strerror})") from problem
    program, paths = sharefile.share_model(
        head,
        directories,
        options.head.stem,
        error=options.error,
        answers=Answers(options.answers),
        comparisons=Comparisons(options.comparisons),
    )
    digest = sharefile.load(paths[0]).spec.digest
    facts = {
        "files": [str(path) for path in paths],
        "digest": digest,
        "program": program.digest,
        "answers": str(program.answers),
        "fraction_bits": program.fraction,
        "error_bound": program.error_bound,
        "failure_probability": program.failure_probability,
        "rounds": program.rounds,
    }
    if options.json:
        sys.stdout.write(json.dumps(facts) + "\n")
        return 0
    sys.stdout.write(
        "".join(f"{path}\n" for path in paths)
        + f"model {digest[:12]}…, answers {program.answers}, logits within {program.error_bound:g}, "
        f"{program.rounds} round{'s' * (program.rounds != 1)} a query\n"
        "Give each file to one party only. Who has both has the model; neither file alone says anything of its weights.\n"
    )
    return 0
