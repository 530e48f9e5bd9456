"""`Client`: encrypted inference in one object."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.errors import InvalidInput, SettingsError
from secure_infer.heads import ModelSpec
from secure_infer_client import transport
from secure_infer_client.batches import Progress, nothing
from secure_infer_client.choice import Offered
from secure_infer_client.costs import Costs
from secure_infer_client.prediction import Call, Explanation, Prediction, label_predictions, predictions
from secure_infer_client.schemes import open_session, targets_of
from secure_infer_client.text import Embedder
from secure_infer_client.text.prepare import TextSide

OCCLUSION_PAD = 16

Answers = TypeVar("Answers")


class Client:
    """Scores inputs with a model on somebody else's server, which sees neither input nor answer.

    scheme: "ckks", encrypted to one server, target "HOST:PORT"; or "mpc", secret-shared between two parties that do not
    collude, target ("A:PORT", "B:PORT"), to which certificates and token go alike. model: its name there.
    privacy: "both-private" or "input-private"; None takes the operator's level. Less than the operator's is refused.
    root_certificates, private_key, certificate_chain: PEM files or bytes; without any, loopback is plain, the rest TLS.
    token: bearer token, sent over TLS only. link: the way to the server, such as "100mbit,20ms" (see `Link.parse`), by
    which the quickest plan is chosen; None takes "loopback" or "lan" ("mpc" has one way). timeout: seconds, of every call.
    embedder: turns texts into rows for `classify`; None takes the packaged one when the model was trained on it.
    deidentify: remove dates, contacts, identifiers, names and addresses from texts before they are embedded.
    long_text: what `classify` does with a text of several windows: "pool" their embeddings into one answer, or score them
    "apart" and answer with the surest (all of them are in `Prediction.parts`). Nothing is ever left out.
    accept_model: decides whether a model that changed on the server may be used; None refuses with ModelChanged.

    A secret key is made here and stays in this process. Threads may share a client; their calls take turns.
    """

    def __init__(
        self,
        target: str | Sequence[str],
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
        if not timeout > 0:
            raise SettingsError(f"timeout: expected seconds above 0, got {timeout}")
        connect = partial(
            transport.channel,
            root_certificates=root_certificates,
            private_key=private_key,
            certificate_chain=certificate_chain,
            token=token,
        )
        self._session, self._channels = open_session(
            transport.targets(targets_of(target, scheme), root_certificates, private_key, party=scheme == "mpc"),
            scheme,
            connect,
            model=model,
            privacy=privacy,
            link=link,
            timeout=timeout,
            accept_model=accept_model,
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
        """The plan that the server offers and this client checked; of two parties, their `Program`."""
        with self._turn():
            return self._session.plan

    @property
    def label_only(self) -> bool:
        """Whether answers are labels and nothing else: `decide` and `classify` work then, `predict` and `explain` do not."""
        with self._turn():
            return self._session.label_only

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

        Raises InvalidInput when x breaks the model's input contract, AnswerRefused when an answer fails its check (a
        server's is never retried, two parties' once), SettingsError when answers are labels alone (see `decide`), and
        ServerUnavailable, ModelChanged, PrivacyRefused, and of two parties HalvesDiffer, PeerFailure,
        CorrelationsExhausted, as their names say.
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
            label_only = self._session.label_only
            prepared = self._text.prepare(texts, self._session.spec, label_only=label_only)
            embed = perf_counter() - started
            if label_only:
                labels = self._counted(self._session.decide, prepared.rows, embed, progress)
                return label_predictions(self.last_call.stats.error_bound, labels, prepared)
            logits = self._scored(prepared.rows, embed, progress)
            return predictions(self._session.spec, self.last_call.stats.error_bound, logits, prepared)

    def decide(self, x: Any, *, progress: Progress = nothing) -> list[str]:
        """The answer of each row of x (B, d) in words: a label, the labels that hold joined by "; ", or numbers.

        For every model and scheme, also where two parties answer with labels alone. Raises what `predict` raises.
        """
        with self._turn():
            rows = self._session.spec.contract.check(x)
            return self._counted(self._session.decide, rows, 0.0, progress)

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
        """Destroy the secret key, where there is one, and close the connections."""
        with self._lock:
            self._closed = True
            self._session.close()
            for channel in self._channels:
                channel.close()

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
        return self._counted(self._session.predict, rows, embed, progress)

    def _counted(
        self,
        ask: Callable[[NDArray[np.float64], Costs, Progress], Answers],
        rows: NDArray[np.float64],
        embed: float,
        progress: Progress,
    ) -> Answers:
        """What the session answers to `ask`; `last_call` is then what it took."""
        costs = Costs()
        found = ask(rows, costs, progress)
        self._last_call = Call(costs.stats(len(rows), embed), self._session.spec.digest)
        return found
