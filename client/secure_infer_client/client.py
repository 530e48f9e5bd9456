"""`Client`: encrypted inference in one object."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.errors import SettingsError
from secure_infer.heads import Head, ModelSpec
from secure_infer_client import transport
from secure_infer_client.batches import Progress, nothing
from secure_infer_client.calls import Calls
from secure_infer_client.choice import Offered
from secure_infer_client.explanation import Explanation, exact, occlusion
from secure_infer_client.explanation.units import split
from secure_infer_client.keyring import KeyRing
from secure_infer_client.prediction import Call, Prediction, label_predictions, predictions
from secure_infer_client.record import Record, Recording
from secure_infer_client.schemes import open_session, targets_of
from secure_infer_client.text import Embedder
from secure_infer_client.text.prepare import TextSide


class Client:
    """Scores inputs with a model on somebody else's server, which sees neither input nor answer.

    scheme: "ckks", encrypted to one server, target "HOST:PORT"; or "mpc", secret-shared between two parties that do not
    collude, target ("A:PORT", "B:PORT"), to which certificates and token go alike. model: its name there.
    privacy: "both-private" or "input-private"; None takes the operator's level. Less than the operator's is refused.
    root_certificates, private_key, certificate_chain: PEM files or bytes; without any, loopback is plain, the rest TLS.
    root_certificates may hold several (a company's CA); they replace the public ones, which see `transport.channel`.
    token: bearer token, sent over TLS only. proxy: "http://[USER:PASSWORD@]HOST:PORT"; None goes by https_proxy and no_proxy,
    "" without one (see `transport.proxy_options`). link: the way to the server, such as "100mbit,20ms" (see `Link.parse`), by
    which the quickest plan is chosen; None takes "loopback" or "lan" ("mpc" has one way). timeout: seconds of every
    call, of those included that were made again because the server was not reached or busy.
    embedder: turns texts into rows for `classify`; None takes the packaged one when the model was trained on it.
    deidentify: remove dates, contacts, identifiers, names and addresses from texts before they are embedded.
    long_text: what `classify` does with a text of several windows: "pool" their embeddings into one answer, or score them
    "apart" and answer with the surest (all of them are in `Prediction.parts`). Nothing is ever left out.
    accept_model: decides whether a model that changed on the server may be used; None refuses with ModelChanged.
    record: where every call is entered before its answer is handed out (see `Record`); it stays the caller's to close.

    key_ring: keeps keys for later processes, encrypted; they then ask their first query at once. None: keys end with this one.

    A secret key is made here and goes nowhere. Threads may share a client: calls take turns, and rows of those that wait go
    together (`turns`). A child of a fork has to make a client of its own.
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
        proxy: str | None = None,
        link: str | None = None,
        timeout: float = 30.0,
        embedder: Embedder | None = None,
        deidentify: bool = True,
        long_text: str = "pool",
        accept_model: Callable[[ModelSpec], bool] | None = None,
        record: Record | None = None,
        key_ring: KeyRing | None = None,
    ) -> None:
        if not timeout > 0:
            raise SettingsError(f"timeout: expected seconds above 0, got {timeout}")
        connect = partial(
            transport.channel,
            root_certificates=root_certificates,
            private_key=private_key,
            certificate_chain=certificate_chain,
            token=token,
            proxy=proxy,
        )
        self._text = TextSide(embedder, remove=deidentify, long_text=long_text)
        self._embedding = threading.Lock()  # an embedder of the caller's own takes one thread at a time
        self._session, channels = open_session(
            transport.targets(targets_of(target, scheme), root_certificates, private_key, party=scheme == "mpc"),
            scheme,
            connect,
            model=model,
            privacy=privacy,
            link=link,
            timeout=timeout,
            accept_model=accept_model,
            key_ring=key_ring,
        )
        self._calls = Calls(self._session, channels)
        self._recording = Recording(record, scheme=scheme, targets=targets_of(target, scheme), model=model)

    # What is served.

    @property
    def spec(self) -> ModelSpec:
        """The model's public facts, as pinned when first seen."""
        return self._calls.spec()

    @property
    def plan(self) -> Any:
        """The plan that the server offers and this client checked; of two parties, their `Program`."""
        with self._calls.turn():
            return self._session.plan

    @property
    def label_only(self) -> bool:
        """Whether answers are labels and nothing else: `decide` and `classify` work then, `predict` and `explain` do not."""
        with self._calls.turn():
            return self._session.label_only

    @property
    def batch_plans(self) -> list[BatchPlan]:
        """The batch plans offered and checked, which `predict` uses where they are quicker; the smallest batch first."""
        with self._calls.turn():
            return self._session.batch_plans

    @property
    def offered(self) -> Offered:
        """Every plan that the server offers for the model, with its own figures."""
        with self._calls.turn():
            return self._session.offered

    @property
    def last_call(self) -> Call:
        """Cost of the latest call of this client, of any thread."""
        return self._calls.last

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
        spec = self.spec
        rows = spec.contract.check(x)
        with self._recording.call("predict", len(rows), spec.digest) as outcome:
            logits, stats, spec = self._calls.predict(rows, 0.0, progress)
            outcome.of(stats.plan, spec.digest, lambda: spec.decide(logits))
        return logits  # type: ignore[no-any-return]

    def classify(self, texts: Sequence[str], *, progress: Progress = nothing) -> list[Prediction]:
        """One Prediction a text. Texts are de-identified (unless switched off) and embedded on this machine.

        progress: of what comes after that, as in `predict`.
        """
        spec = self.spec
        label_only = self._session.label_only
        started = perf_counter()
        with self._embedding:
            prepared = self._text.prepare(texts, spec, label_only=label_only)
        embed = perf_counter() - started
        with self._recording.call("classify", len(prepared.removed), spec.digest) as outcome:
            if label_only:
                labels, stats, spec = self._calls.decide(prepared.rows, embed, progress)
                found = label_predictions(stats.error_bound, labels, prepared)
            else:
                logits, stats, spec = self._calls.predict(prepared.rows, embed, progress)
                found = predictions(spec, stats.error_bound, logits, prepared)
            outcome.of(stats.plan, spec.digest, lambda: [one.label for one in found])
        return found

    def decide(self, x: Any, *, progress: Progress = nothing) -> list[str]:
        """The answer of each row of x (B, d) in words: a label, the labels that hold joined by "; ", or numbers.

        For every model and scheme, also where two parties answer with labels alone. Raises what `predict` raises.
        """
        spec = self.spec
        rows = spec.contract.check(x)
        with self._recording.call("decide", len(rows), spec.digest) as outcome:
            labels, stats, spec = self._calls.decide(rows, 0.0, progress)
            outcome.of(stats.plan, spec.digest, lambda: labels)
        return labels  # type: ignore[no-any-return]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Rows (R, d) of texts as `classify` embeds them, de-identified first; nothing is sent."""
        spec = self.spec
        with self._embedding:
            return self._text.prepare(texts, spec).rows

    def explain(
        self,
        text: str,
        *,
        units: str = "words",
        label: str | None = None,
        published: Head | None = None,
        progress: Progress = nothing,
    ) -> Explanation:
        """How much each word of a text (or phrase: `units`) adds to the logit of `label`, or of the label answered.

        By occlusion: each variant lacks one of them, is embedded here, and all are sent encrypted in one batch. Their number
        is padded to a multiple of 16, so that message sizes tell the text's length coarsely. published: the served head
        itself, where it is linear and public: then exact, and nothing is sent. See `Explanation`.
        """
        spec, started = self.spec, perf_counter()
        with self._embedding:
            found = split(self._text.cleaned(text), units)
            if published is not None:
                return exact.explanation(spec, published, self._text.embedder_for(spec), found, label)
            rows = self._text.pooled(occlusion.variants(found), spec)
        with self._recording.call("explain", 1, spec.digest) as outcome:
            logits, stats, spec = self._calls.predict(rows, perf_counter() - started, progress)
            outcome.of(stats.plan, spec.digest, lambda: spec.decide(logits[:1]))
        return occlusion.explanation(spec, found, logits, stats.error_bound, label)

    def evaluate_plaintext(self, x: Any) -> NDArray[np.float64]:
        """Logits from the server's plaintext baseline: it sees x. For benchmarks on public data; off on most servers."""
        with self._calls.turn():
            return self._session.plaintext(self._session.spec.contract.check(x))

    # The keys.

    def rotate_keys(self, *, renew: bool = True) -> int:
        """Destroy the secret keys and have the server delete what belongs to them; returns how many keys it deleted.

        renew: make and upload new ones before that; the next call does it otherwise. Keys here are gone even where the server
        cannot be asked, and its part is then deleted with the next rotation. 0 at two parties, which hold no keys, and at servers
        that tell nobody apart, which forget keys by themselves.
        """
        with self._calls.turn():
            return self._session.rotate(renew=renew)

    def close(self) -> None:
        """Destroy the secret keys of this process and close the connections; what the key ring keeps stays there."""
        self._calls.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise SettingsError("a client cannot be sent to another process; make a new Client there")
