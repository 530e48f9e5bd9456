"""Every error a user can meet: a stable reason, the gRPC status it travels as, and one clear message.

A message says what was got, what was expected and what to do. It never holds an input value, an embedding, a logit or
key material: it is written to logs and sent over the network. Nothing here derives from RuntimeError, which third-party
code likes to swallow.
"""

from __future__ import annotations


class SecureInferError(Exception):
    """Base of all errors raised by this project.

    `reason` is the stable machine-readable name, `status` the gRPC status code's name, `details` short public facts
    (sizes, names, limits) that travel beside the message.
    """

    reason = "INTERNAL_FAULT"
    status = "INTERNAL"

    def __init__(self, message: str, **details: str | int | float) -> None:
        super().__init__(message)
        self.message = message
        self.details = {key: str(value) for key, value in details.items()}


class InvalidInput(SecureInferError, ValueError):
    """The caller's array, text or number is outside what the head accepts."""

    reason, status = "INVALID_INPUT", "INVALID_ARGUMENT"


class InvalidHead(SecureInferError, ValueError):
    """A head's layers do not fit together, or an artifact file is corrupt."""

    reason, status = "INVALID_HEAD", "FAILED_PRECONDITION"


class UnsupportedHead(SecureInferError):
    """The head is sound, but no plan can evaluate it under encryption as asked; the message says what would fit."""

    reason, status = "UNSUPPORTED_HEAD", "FAILED_PRECONDITION"


class UnknownModel(SecureInferError):
    """The server has no model of that name."""

    reason, status = "UNKNOWN_MODEL", "NOT_FOUND"


class ModelChanged(SecureInferError):
    """The served model's digest differs from the one this client pinned."""

    reason, status = "MODEL_CHANGED", "FAILED_PRECONDITION"


class PrivacyRefused(SecureInferError):
    """The client asked for less privacy than the operator set for this model."""

    reason, status = "PRIVACY_REFUSED", "PERMISSION_DENIED"


class PlanRefused(SecureInferError):
    """A plan offered by a server failed the client's own checks, or a request named a plan the server does not offer."""

    reason, status = "PLAN_REFUSED", "FAILED_PRECONDITION"


class UnknownKey(SecureInferError):
    """The server does not hold the key that a request names. Our own protocol says so as data, and clients mend it."""

    reason, status = "UNKNOWN_KEY", "FAILED_PRECONDITION"


class MalformedRequest(SecureInferError):
    """Bytes from the client are not what the plan says: length, residues, seed, digest."""

    reason, status = "MALFORMED_REQUEST", "INVALID_ARGUMENT"


class SecretKeyReceived(MalformedRequest):
    """The client sent something with the structure of a secret key. It was dropped; treat that key as exposed."""

    reason = "SECRET_KEY_RECEIVED"


class ResourceExhausted(SecureInferError):
    """A size or memory bound of the server is reached."""

    reason, status = "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"


class InternalFault(SecureInferError):
    """An unexpected fault on the server; the message holds an id to look up in its log and nothing else."""


class AnswerRefused(SecureInferError):
    """An answer failed the client's check. Under CKKS it is never retried, and the key it was made for is destroyed; two
    parties are asked once more, with fresh shares."""

    reason, status = "ANSWER_REFUSED", "DATA_LOSS"


class EmbedderMismatch(SecureInferError):
    """The embedder at hand is not the one the head was trained on, or its files are missing or changed."""

    reason, status = "EMBEDDER_MISMATCH", "FAILED_PRECONDITION"


class MissingExtra(SecureInferError):
    """An optional part is not installed; the message holds the install command."""

    reason, status = "MISSING_EXTRA", "FAILED_PRECONDITION"


class ServerUnavailable(SecureInferError):
    """No server answered, or not within the deadline."""

    reason, status = "SERVER_UNAVAILABLE", "UNAVAILABLE"


class CallFailed(SecureInferError):
    """The server answered with a status outside this catalogue."""

    reason, status = "CALL_FAILED", "UNKNOWN"


class PeerFailure(SecureInferError):
    """The other party was lost, gave no message in time, or sent one that does not belong here. Nothing was answered;
    the parties mend their link by themselves."""

    # Not UNAVAILABLE: half of a secret-shared request must never be sent again on its own.
    reason, status = "PEER_FAILURE", "ABORTED"


class HalvesDiffer(SecureInferError):
    """The two parties hold halves that do not belong together: another model, program, shape or client."""

    reason, status = "HALVES_DIFFER", "FAILED_PRECONDITION"


class CorrelationsExhausted(SecureInferError):
    """The store of correlated randomness is dry, and the dealer brought none before the deadline."""

    reason, status = "CORRELATIONS_EXHAUSTED", "RESOURCE_EXHAUSTED"


class CorrelationMisuse(SecureInferError):
    """Correlated randomness was asked for twice, out of order, or for another shape than it was made for."""

    reason, status = "CORRELATION_MISUSE", "INTERNAL"


class ForbiddenRandomness(SecureInferError):
    """A generator that is not cryptographic was drawn from in a process that handles shares."""

    reason, status = "FORBIDDEN_RANDOMNESS", "INTERNAL"


class Unauthenticated(SecureInferError):
    """Nothing says who is calling, or what says so did not hold: no certificate, or a token that is expired or not trusted."""

    reason, status = "UNAUTHENTICATED", "UNAUTHENTICATED"


class PermissionDenied(SecureInferError):
    """The caller is known, and no rule of the operator allows it this call."""

    reason, status = "PERMISSION_DENIED", "PERMISSION_DENIED"


class SecondFactorNeeded(SecureInferError):
    """An administrative call without a one-time code, or with one that is wrong, used or locked out."""

    reason, status = "SECOND_FACTOR_NEEDED", "UNAUTHENTICATED"


class BudgetExhausted(SecureInferError):
    """The caller's allowance for this model does not cover the request; the message says when it renews."""

    reason, status = "BUDGET_EXHAUSTED", "RESOURCE_EXHAUSTED"


class BudgetUnavailable(SecureInferError):
    """The ledger of budgets cannot be written, so nothing is answered; for the operator to mend."""

    reason, status = "BUDGET_UNAVAILABLE", "UNAVAILABLE"


class RequestIdReused(MalformedRequest):
    """The caller used this request id for another request shortly before."""

    reason = "REQUEST_ID_REUSED"


class AuditUnavailable(SecureInferError):
    """The audit log takes no entries, so nothing is answered unrecorded; for the operator to mend."""

    reason, status = "AUDIT_UNAVAILABLE", "UNAVAILABLE"


class CannotUnlock(SecureInferError):
    """A file that is encrypted at rest does not open: another passphrase or key, or it was changed."""

    reason, status = "CANNOT_UNLOCK", "FAILED_PRECONDITION"


class SettingsError(SecureInferError):
    """A command-line option, file or address is wrong."""

    reason, status = "SETTINGS", "INVALID_ARGUMENT"


def _all(base: type[SecureInferError]) -> dict[str, type[SecureInferError]]:
    found = {base.reason: base} if base is not SecureInferError else {}
    for sub in base.__subclasses__():
        found.update(_all(sub))
    return found


CATALOGUE: dict[str, type[SecureInferError]] = _all(SecureInferError)
"""Reason -> class, so that an error crosses the wire and arrives as itself."""
