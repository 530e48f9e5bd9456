"""Install the peers' environments, which the benchmark itself never does."""

from __future__ import annotations

import argparse
import subprocess
import sys

from secure_infer_benchmarks.peers.environments import PEERS, SECRET_SHARING, Unavailable, install


def main() -> int:
    """Each peer in turn, or those that are named; returns 1 when one of them cannot be installed."""
    peers = {peer.name: peer for peer in (*PEERS, *SECRET_SHARING) if not peer.absent}
    parser = argparse.ArgumentParser("python -m secure_infer_benchmarks.peers", description=__doc__)
    parser.add_argument(
        "--install",
        nargs="*",
        required=True,
        metavar="NAME",
        help=f"make these environments anew, by default all: {', '.join(peers)}",
    )
    names = parser.parse_args().install or list(peers)
    if unknown := [name for name in names if name not in peers]:
        parser.error(f"no peer is called {', '.join(unknown)}; there are {', '.join(peers)}")
    failed = 0
    for name in names:
        try:
            install(peers[name])
            sys.stdout.write(f"{name}: ready\n")
        except (Unavailable, subprocess.TimeoutExpired) as error:
            failed = 1
            sys.stdout.write(f"{name}: {error}\n")
        sys.stdout.flush()
    return failed


if __name__ == "__main__":
    sys.exit(main())
