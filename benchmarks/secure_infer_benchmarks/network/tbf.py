"""Whether the forwarder's rate is the kernel's: bytes through a token bucket (`tc tbf`) in a network namespace of their own.

    python -m secure_infer_benchmarks.network.tbf --megabits 100

The namespace has nothing but a loopback with the bucket and Ethernet's packet size, is nobody else's, and ends with its
process. The bucket counts headers and acknowledgements too, the forwarder counts payload: 1448 bytes of each 1514, so that
some 5% less arrives. Delay cannot be compared so: kernels without `netem` have none.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from typing import Any

from secure_infer_benchmarks.forwarder_precision import kept_rate, rate_on_loopback

MODULE = "secure_infer_benchmarks.network.tbf"
PACKET = 1500
PAYLOAD = 1448 / 1514
"""Of the bytes that a bucket counts, with TCP's time stamps."""
TICKS = 100
"""A second, in which a kernel fills a bucket at least: one with less than a tick's bytes in it cannot keep its rate."""
SECONDS = 1.0


def compare(megabits: float) -> dict[str, Any]:
    """{"megabits", "forwarder", "tbf": Mbit/s of payload}, or with a "reason" why there is no `tbf` here."""
    found: dict[str, Any] = {"megabits": megabits, "forwarder": kept_rate(megabits, seconds=SECONDS)}
    missing = [name for name in ("unshare", "ip", "tc") if shutil.which(name) is None]
    if missing:
        return found | {"reason": f"not installed here: {', '.join(missing)}"}
    own = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    inside = [sys.executable, "-m", MODULE, "--inside", "--megabits", repr(megabits)]
    done = subprocess.run([*own, *inside], capture_output=True, text=True, timeout=60)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return found | {"reason": f"no network namespace with a token bucket here: {why[:120]}"}
    return found | {"tbf": float(json.loads(done.stdout)), "payload_share": PAYLOAD}


def _inside(megabits: float) -> float:
    """Mbit/s through the bucket, which this process's own namespace gets here."""
    burst = max(32 << 10, round(megabits * 1e6 / 8 / TICKS))
    bucket = f"tc qdisc add dev lo root tbf rate {round(megabits * 1e3)}kbit burst {burst}b latency 500ms"
    for command in (f"ip link set lo mtu {PACKET} up", bucket):
        done = subprocess.run(command.split(), capture_output=True, text=True)
        if done.returncode:
            sys.stderr.write(done.stderr or f"{command} failed\n")
            raise SystemExit(1)
    return rate_on_loopback(megabits * SECONDS / 8)


def main() -> int:
    """Print both rates as JSON."""
    parser = argparse.ArgumentParser(f"python -m {MODULE}", description=main.__doc__)
    parser.add_argument("--megabits", type=float, default=100.0, metavar="MBIT/S", help="the rate asked of both (100)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.megabits > 0:
        parser.error("a rate above 0 is needed")
    found = _inside(options.megabits) if options.inside else compare(options.megabits)
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
