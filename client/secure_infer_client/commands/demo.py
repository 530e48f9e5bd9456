"""`secure-infer demo`: the whole path on this machine, on real diagnosis texts, with what each side saw."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from secure_infer import models
from secure_infer.errors import SettingsError
from secure_infer.heads import Head
from secure_infer_client import samples
from secure_infer_client.demonstration import beside, ckks, mpc
from secure_infer_client.demonstration.scored import MODEL
from secure_infer_client.demonstration.seen import say
from secure_infer_client.schemes import SCHEMES

DEMONSTRATIONS = {"ckks": ckks.run, "mpc": mpc.run}


def run(arguments: list[str]) -> int:
    """Run the demo; prints a table and a summary, or one JSON object."""
    parser = argparse.ArgumentParser("secure-infer demo", description=__doc__)
    parser.add_argument(
        "--scheme",
        choices=[*SCHEMES, "both"],
        default="ckks",
        help="encrypted to one server (ckks, default), shared between two parties (mpc), or one after the other",
    )
    parser.add_argument("--texts", type=int, default=1000, metavar="N", help="held-out texts of the summary (1000)")
    parser.add_argument(
        "--seed", type=int, default=samples.PUBLISHED_SEED, help=f"of the draw ({samples.PUBLISHED_SEED})"
    )
    parser.add_argument(
        "--models", type=Path, default=None, metavar="DIR", help="serve these heads instead of the packaged ones"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if not 1 <= options.texts <= len(samples.load()):
        raise SettingsError(f"--texts: expected 1 to {len(samples.load())}, got {options.texts}")
    drawn = samples.draw(options.texts, options.seed)
    directory = options.models or models.path()
    head = Head.load(directory / f"{MODEL}.head")
    chosen = SCHEMES if options.scheme == "both" else (options.scheme,)
    results = {}
    for scheme in chosen:
        results[scheme] = DEMONSTRATIONS[scheme](directory, head, drawn, quiet=options.json)
    if options.json:
        sys.stdout.write(json.dumps(results if len(chosen) > 1 else results[chosen[0]]) + "\n")
    elif len(chosen) > 1:
        say(False, "\n".join(beside.lines(results["ckks"], results["mpc"])))
    return 0
