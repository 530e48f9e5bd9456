"""A plain script: texts in, labels out. Run it from anywhere; it serves the packaged models on loopback first.

With a server of your own, leave `LocalServer` out and give `Client` its address and certificates.
"""

from __future__ import annotations

import sys

from secure_infer import models
from secure_infer_client import Client
from secure_infer_client.local_server import LocalServer

TEXTS = ["Acute appendicitis with perforation", "Fracture of the left femur", "Type 2 diabetes mellitus"]


def main() -> None:
    with LocalServer(models.path()) as server, Client(server.address, model="icd10-chapter-linear") as client:
        for text, found in zip(TEXTS, client.classify(TEXTS), strict=True):
            sys.stdout.write(f"{found.probability:6.1%}  {found.label:<28} {text}\n")
        stats = client.last_call.stats
        sys.stdout.write(f"{stats.bytes_up} bytes went out, encrypted ({stats.security_bits}-bit)\n")


if __name__ == "__main__":
    main()
