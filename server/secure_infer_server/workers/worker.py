"""A worker: takes frames from the server, one job at a time, until the server closes its end.

It holds what it was sent: recipes of plans, compiled at first use, and clients' keys, loaded at first use. What comes from
clients is checked here before SEAL sees it, as everywhere.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from multiprocessing.connection import wait
from multiprocessing.reduction import ForkingPickler
from typing import Any

from secure_infer.ckks import keymaterial, seal
from secure_infer.ckks.batch.planner import Program
from secure_infer.ckks.blinding import Blinder
from secure_infer.ckks.keymaterial import Half
from secure_infer.ckks.plan import Plan, QueryPlan
from secure_infer.ckks.queries import QueryEvaluator
from secure_infer.errors import CallFailed, InternalFault, SecureInferError
from secure_infer_server import logs
from secure_infer_server.batches import Answer, BatchTimes, Progress, evaluate_batch
from secure_infer_server.blinds import load_blind
from secure_infer_server.dataplane import Evaluation, check_key
from secure_infer_server.faults import unexpected
from secure_infer_server.keystore import ClientKeys
from secure_infer_server.workers.frames import Header, Wire
from secure_infer_server.workers.jobs import error_header, group

log = logging.getLogger(__name__)

NICE = 3  # the server, which answers everybody, goes before its workers
BACKGROUND = 8  # and single queries before batches


def main(sock: socket.socket, background: bool, form: logs.Format) -> None:
    """The process. form: of what it logs. It ends with the server: when its socket closes, or at once when the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.start(form)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    os.nice(BACKGROUND if background else NICE)
    serve(sock)


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def serve(sock: socket.socket) -> None:
    """Work until the server closes its end."""
    try:
        _Worker(Wire(sock)).run()
    except OSError:
        pass
    except Exception:  # else multiprocessing would print it, with its text
        log.exception("a worker ends")
    finally:
        sock.close()


def resident() -> int:
    """Bytes of memory that this process has; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123 (after every job)
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class _Worker:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._recipes: dict[tuple[str, str], Any] = {}
        self._evaluators: dict[tuple[str, str], QueryEvaluator] = {}
        self._material: dict[tuple[str, str], bytes] = {}
        self._keys: dict[tuple[str, str], ClientKeys] = {}
        self._blinders: dict[tuple[str, str], Blinder] = {}

    def run(self) -> None:
        self._wire.send({"ready": os.getpid()})
        while True:
            header, parts = self._wire.receive()
            match header["do"]:
                case "offer":
                    self._recipes[header["model"], header["plan"]] = ForkingPickler.loads(parts[0])
                case "keys":
                    self._material[header["plan"], header["key"]] = parts[0]
                case "forget":
                    for held in (self._material, self._keys, self._blinders):
                        held.pop((header["plan"], header["key"]), None)
                case "withdraw":
                    self._recipes.pop((header["model"], header["plan"]), None)
                    self._evaluators.pop((header["model"], header["plan"]), None)
                case "check":
                    self._answer(lambda: self._check(header, parts[0]))  # noqa: B023 (called at once)
                case "infer":
                    self._answer(lambda: self._infer(header, parts))  # noqa: B023
                case "batch":
                    features = _Features(self._wire)
                    self._answer(lambda: self._batch(header, features))  # noqa: B023
                    features.drain()
                # What ends a job may come when the job has ended.

    def _answer(self, job: Callable[[], tuple[Header, list[bytes]]]) -> None:
        try:
            header, parts = job()
        except SecureInferError as error:
            header, parts = error_header(error), []
        except ConnectionError:
            raise
        except Exception:
            header, parts = error_header(unexpected(log, "a worker")), []
        self._wire.send({**header, "resident": resident()}, parts)

    # Jobs.

    def _check(self, header: Header, data: bytes) -> tuple[Header, list[bytes]]:
        plan = self._plan(header)
        material = check_key(plan, bytes.fromhex(header["digest"]), data)
        self._keys[header["plan"], header["key"]] = ClientKeys.load(plan, material)
        if not isinstance(self._recipe(header), Program):
            self._evaluator(header)  # before the first query waits for it
        return {}, []

    def _infer(self, header: Header, parts: list[bytes]) -> tuple[Header, list[bytes]]:
        evaluator = self._evaluator(header)
        keys = self._client(header, evaluator.plan)
        queries = group(header["queries"], parts)
        blinds = None
        if keys is not None and keys.public is not None:
            public, sent = keys.public, parts[sum(header["queries"]) :]
            blinds = _Blinds(evaluator.plan, sent, lambda: self._blinder(header, evaluator.plan, public))
        evaluation = Evaluation(evaluator, None if keys is None else keys.switching, blinds)
        for query in queries:
            if self._wire.waiting():  # nothing else is sent while a worker is at work
                raise CallFailed("the call was cancelled or its deadline passed before it was evaluated")
            evaluation.add(query)
        times = evaluation.done()
        products = [product for answer in evaluation.answers for product in answer]
        return {"answers": [len(answer) for answer in evaluation.answers], "times": asdict(times)}, products

    def _batch(self, header: Header, features: _Features) -> tuple[Header, list[bytes]]:
        program: Program = self._recipe(header)
        keys = self._client(header, program.plan)
        for event in evaluate_batch(program, keys, features, header["seconds"], features.cancelled):
            match event:
                case Progress():
                    self._wire.send({"progress": event.done})
                case Answer():
                    self._wire.send({"progress": event.done}, [event.product])
                case BatchTimes():
                    return {"times": asdict(event)}, []
        raise InternalFault("a batch ended without its times")

    # What it holds.

    def _recipe(self, header: Header) -> Any:
        return self._recipes[header["model"], header["plan"]]

    def _plan(self, header: Header) -> Plan:
        recipe = self._recipe(header)
        return recipe.plan if isinstance(recipe, Program) else recipe[0]

    def _evaluator(self, header: Header) -> QueryEvaluator:
        name = header["model"], header["plan"]
        if name not in self._evaluators:
            _, compiled = self._recipe(header)
            self._evaluators[name] = compiled()
        return self._evaluators[name]

    def _client(self, header: Header, plan: Plan) -> ClientKeys | None:
        if not header["key"]:
            return None
        name = header["plan"], header["key"]
        if name not in self._keys:
            self._keys[name] = ClientKeys.load(plan, keymaterial.parse(plan, self._material.pop(name)))
        return self._keys[name]

    def _blinder(self, header: Header, plan: Plan, public: Half) -> Blinder:
        name = header["plan"], header["key"]
        if name not in self._blinders:
            self._blinders[name] = Blinder(plan, public)
        return self._blinders[name]


class _Blinds:
    """Blinds that were sent along, then fresh ones; see `dataplane.Blinds`."""

    def __init__(self, plan: QueryPlan, sent: list[bytes], blinder: Callable[[], Blinder]) -> None:
        self._plan, self._sent, self._blinder = plan, sent, blinder
        self.ready = self.inline = 0
        self.waited = 0.0

    def __call__(self, clock: Callable[[], float]) -> seal.Ciphertext:
        if self._sent:
            self.ready += 1
            return load_blind(self._plan, self._sent.pop())
        started = clock()
        blind = self._blinder().blind()
        self.inline += 1
        self.waited += clock() - started
        return blind

    def done(self) -> None:
        """The server refills by itself."""


class _Features:
    """A batch's messages. The server ends them with `end` or `cancel`, whatever became of the batch."""

    def __init__(self, wire: Wire) -> None:
        self._wire, self._ended, self._cancelled = wire, False, False

    def __iter__(self) -> Iterator[list[bytes]]:
        return self

    def __next__(self) -> list[bytes]:
        if self._ended:
            raise StopIteration
        header, parts = self._wire.receive()
        match header["do"]:
            case "features":
                return parts
            case "cancel":
                self._ended = self._cancelled = True
                raise CallFailed("the call was cancelled or its deadline passed before the batch was evaluated")
        self._ended = True
        raise StopIteration

    def cancelled(self) -> bool:
        """Whether the server has ended a batch whose features are all there."""
        return self._cancelled or self._wire.waiting()

    def drain(self) -> None:
        """Skip what a batch that failed did not read."""
        while not self._ended:
            header, _ = self._wire.receive()
            self._ended = header["do"] != "features"
