"""`Client`: encrypted inference in one object."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_infer import address
from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.link import Link
from secure_infer.errors import InvalidInput, SettingsError
from secure_infer.heads import ModelSpec
from secure_infer_client import transport
from secure_infer_client.batches import Progress, nothing
from secure_infer_client.choice import Offered
from secure_infer_client.costs import Costs
from secure_infer_client.prediction import PLANS, Call, CallStats, Explanation, Prediction, predictions
from secure_infer_client.session import Session, parse_privacy
from secure_infer_client.text import Embedder
from secure_infer_client.text.prepare import TextSide

OCCLUSION_PAD = 16


class Client:
    """Scores inputs with a model on somebody else's server, which sees neither input nor answer.

    target: "HOST:PORT". model: its name on the server. scheme: "ckks".
    privacy: "both-private" or "input-private"; None takes the operator's level. Less than the operator's is refused.
    root_certificates, private_key, certificate_chain: PEM files or bytes; without any, loopback is plain, the rest TLS.
    token: bearer token, sent over TLS only. link: the way to the server, such as "100mbit,20ms" (see `Link.parse`), by
    which the quickest plan is chosen; None takes "loopback" or "lan". timeout: seconds, the deadline of every call.
    embedder: turns texts into rows for `classify`; None takes the packaged one when the model was trained on it.
    deidentify: remove dates, contacts, identifiers, names and addresses from texts before they are embedded.
    long_text: what `classify` does with a text of several windows: "pool" their embeddings into one answer, or score them
    "apart" and answer with the surest (all of them are in `Prediction.parts`). Nothing is ever left out.
    accept_model: decides whether a model that changed on the server may be used; None refuses with ModelChanged.

    The secret key is made here and stays in this process. Threads may share a client; their calls take turns.
    """

    def __init__(
        self,
        target: str,
        *,
        model: str,
        scheme: str = "ckks",
        privacy: str | None = None,
        root_certificates: transport.Pem = None,
        private_key: transport.Pem = None,
        certificate_chain: transport.Pem = None,
        token: str | None = None,
        link: str | None = None,
        timeout: float = 30.0,
        embedder: Embedder | None = None,
        deidentify: bool = True,
        long_text: str = "pool",
        accept_model: Callable[[ModelSpec], bool] | None = None,
    ) -> None:
        if scheme != "ckks":
            raise SettingsError(f"scheme: this version evaluates under 'ckks', got {scheme!r}")
        if not isinstance(target, str):
            raise SettingsError(f"target: expected 'HOST:PORT', got {type(target).__name__}")
        if not timeout > 0:
            raise SettingsError(f"timeout: expected seconds above 0, got {timeout}")
        self._channel = transport.channel(
            target,
            root_certificates=root_certificates,
            private_key=private_key,
            certificate_chain=certificate_chain,
            token=token,
        )
        usual = "loopback" if address.is_loopback(address.parse(target, "target")[0]) else "lan"
        self._session = Session(
            self._channel, target, model, parse_privacy(privacy), Link.parse(link or usual), timeout, accept_model
        )
        self._text = TextSide(embedder, remove=deidentify, long_text=long_text)
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._closed = False
        self._last_call: Call | None = None

    # What is served.

    @property
    def spec(self) -> ModelSpec:
        """The model's public facts, as pinned when first seen."""
        with self._turn():
            return self._session.spec

    @property
    def plan(self) -> Any:
        """The plan that the server offers and this client checked."""
        with self._turn():
            return self._session.plan

    @property
    def batch_plans(self) -> list[BatchPlan]:
        """The batch plans offered and checked, which `predict` uses where they are quicker; the smallest batch first."""
        with self._turn():
            return self._session.batch_plans

    @property
    def offered(self) -> Offered:
        """Every plan that the server offers for the model, with its own figures."""
        with self._turn():
            return self._session.offered

    @property
    def last_call(self) -> Call:
        """Cost of the latest call of this client."""
        if self._last_call is None:
            raise InvalidInput("last_call: nothing was predicted yet")
        return self._last_call

    # Queries.

    def predict(self, x: Any, *, progress: Progress = nothing) -> NDArray[np.float64]:
        """Logits (B, K), float64, of rows x (B, d).

        Many rows are sent as batches where the server offers a plan for it and that is quicker; see `last_call.stats.plan`.
        progress: called now and then with the part that is done, from 0 to 1.

        Raises InvalidInput when x breaks the model's input contract, AnswerRefused when an answer fails its check (it
        is never retried), and ServerUnavailable, ModelChanged, PrivacyRefused as their names say.
        """
        with self._turn():
            rows = self._session.spec.contract.check(x)
            return self._scored(rows, 0.0, progress)

    def classify(self, texts: Sequence[str], *, progress: Progress = nothing) -> list[Prediction]:
        """One Prediction a text. Texts are de-identified (unless switched off) and embedded on this machine.

        progress: of what comes after that, as in `predict`.
        """
        with self._turn():
            started = perf_counter()
            prepared = self._text.prepare(texts, self._session.spec)
            logits = self._scored(prepared.rows, perf_counter() - started, progress)
            return predictions(self._session.spec, self.last_call.stats.error_bound, logits, prepared)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Rows (R, d) of texts as `classify` embeds them, de-identified first; nothing is sent."""
        with self._turn():
            return self._text.prepare(texts, self._session.spec).rows

    def explain(self, text: str) -> Explanation:
        """Word attributions by occlusion: each variant lacks one word, is embedded here and sent encrypted.

        The number of variants is padded to a multiple of 16, so that message sizes tell the text's length coarsely.
        """
        with self._turn():
            started = perf_counter()
            spec = self._session.spec
            words = self._text.cleaned(text).split()
            whole = " ".join(words)
            variants = [whole, *(" ".join(words[:i] + words[i + 1 :]) or whole for i in range(len(words)))]
            variants += [whole] * (-len(variants) % OCCLUSION_PAD)
            logits = self._scored(self._text.pooled(variants, spec), perf_counter() - started)
            if spec.outputs == 1:
                scores = logits[:, 0] * (1 if logits[0, 0] > 0 else -1)
            else:
                scores = logits[:, int(logits[0].argmax())]
            return Explanation(spec.decide(logits[:1])[0], tuple(words), scores[0] - scores[1 : len(words) + 1])

    def evaluate_plaintext(self, x: Any) -> NDArray[np.float64]:
        """Logits from the server's plaintext baseline: it sees x. For benchmarks on public data; off on most servers."""
        with self._turn():
            return self._session.plaintext(self._session.spec.contract.check(x))

    def close(self) -> None:
        """Destroy the secret key and close the connection."""
        with self._lock:
            self._closed = True
            self._session.close()
            self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Inside.

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One call at a time, of an open client, in the process that made it."""
        if self._process != os.getpid():  # before the lock: a fork may have copied it held
            raise SettingsError("this client was made before a fork; make a new Client in the child process")
        with self._lock:
            if self._closed:
                raise SettingsError("this client is closed; make a new one")
            yield

    def _scored(self, rows: NDArray[np.float64], embed: float, progress: Progress = nothing) -> NDArray[np.float64]:
        costs = Costs()
        logits = self._session.predict(rows, costs, progress)
        total = perf_counter() - costs.started + embed
        stats = CallStats(
            embed_ms=1e3 * embed,
            encrypt_ms=1e3 * costs.encrypt,
            network_ms=1e3 * max(0.0, costs.call - costs.server),
            server_ms=1e3 * costs.server,
            decrypt_ms=1e3 * costs.decrypt,
            total_ms=1e3 * total,
            bytes_up=costs.bytes_up,
            bytes_down=costs.bytes_down,
            key_bytes=costs.key_bytes,
            plan=PLANS.join(dict.fromkeys(f"{plan.kind} {plan.parameters}, {plan.privacy}" for plan in costs.plans)),
            security_bits=min(plan.security_bits for plan in costs.plans),
            smudging_bits=min(plan.smudging_bits for plan in costs.plans),
            error_bound=max(plan.error_bound for plan in costs.plans),
            rounds=costs.rounds,
            records=len(rows),
            blinds_ready=costs.blinds_ready,
            blinds_inline=costs.blinds_inline,
            server_load_ms=1e3 * costs.load,
            server_evaluate_ms=1e3 * costs.evaluate,
        )
        self._last_call = Call(stats, self._session.spec.digest)
        return logits
