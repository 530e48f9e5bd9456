"""Two parties' stores and a dealer: matching bundles, each once; refusals in time; a dealer that dies and comes back."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from bisect import bisect_left
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from secure_infer.errors import CorrelationMisuse, CorrelationsExhausted, MalformedRequest, SettingsError
from secure_infer.mpc import masks
from secure_infer.mpc.comparison import Argmax, Relu, Signs
from secure_infer.mpc.correlations import Need, Product, Recipe, Square, WeightProduct
from secure_infer.mpc.ring import Matrix
from secure_infer_server.commands import certs
from secure_infer_server.mpc import subscription
from secure_infer_server.mpc.dealing import DealerProcess
from secure_infer_server.mpc.endpoint import Identity, Listening
from secure_infer_server.mpc.metrics import DealerMetrics, StoreMetrics
from secure_infer_server.mpc.roles import Role
from secure_infer_server.mpc.stores import Drawn, Stores
from secure_infer_server.observe.endpoint import MetricsServer
from shared import until

PROGRAM = "ab" * 32
PATIENCE = 20.0
AT_ONCE = 0.2


def shared(rows: int, program: str = PROGRAM) -> Recipe:
    return Recipe(
        program, rows, (WeightProduct(0, rows, 24, 8), Square(8 * rows), WeightProduct(1, rows, 8, 3), Argmax(rows, 3))
    )


def plain(rows: int) -> Recipe:
    return Recipe("cd" * 32, rows, (Relu(8 * rows), Product(rows), Signs(rows)))


def soon() -> float:
    return time.monotonic() + PATIENCE


@pytest.fixture
def dealing() -> Iterator[tuple[DealerProcess, str]]:
    process = DealerProcess(Listening("127.0.0.1", 0, None))
    yield process, process.start()
    process.stop()


@pytest.fixture
def parties(dealing: tuple[DealerProcess, str]) -> Iterator[tuple[Stores, Stores]]:
    yield from running(dealing[1])


def running(address: str, *identities: Identity) -> Generator[tuple[Stores, Stores], None, None]:
    """Started stores of both parties."""
    pair = tuple(Stores(party, address, identities[party] if identities else None) for party in (0, 1))
    for stores in pair:
        stores.start()
    yield pair[0], pair[1]
    for stores in pair:
        stores.close()


def draw(parties: tuple[Stores, Stores], recipe: Recipe) -> tuple[Drawn, Drawn]:
    """One bundle, at both parties."""
    for stores in parties:
        stores.register(recipe, 4, keep=True)
    first = parties[0].take(recipe, soon())
    return first, parties[1].claim(recipe, first.correlations.id, soon())


def hold_together(recipe: Recipe, pair: tuple[Drawn, Drawn]) -> bool:
    """Whether derived fields are what they should be for the masks, and the weight masks."""
    fixed: dict[int, Matrix] = {}
    seeds = [drawn.mask_seed for drawn in pair]
    assert all((seed is not None) == bool(recipe.tensors()) for seed in seeds)
    if recipe.tensors():
        first, second = (masks.expand(seed, recipe.tensors()) for seed in seeds if seed is not None)
        fixed = {tensor: Matrix(first[tensor] + second[tensor]) for tensor in first}
    right = True
    for need in recipe.needs:
        shares = [drawn.correlations.take(need) for drawn in pair]
        values = {f.name: f.joining.join(*(s[f.name] for s in shares)) for f in (*need.masks(), *need.derived())}
        right &= all((values[name] == value).all() for name, value in need.derive(values, fixed).items())
    for drawn in pair:
        drawn.correlations.done()
    return right


@pytest.mark.parametrize("recipe", [shared(1), shared(300), plain(1), plain(500)], ids=lambda r: f"{r.rows}")
def test_both_parties_get_what_belongs_together(parties: tuple[Stores, Stores], recipe: Recipe) -> None:
    seen = set()
    for _ in range(6):
        pair = draw(parties, recipe)
        assert hold_together(recipe, pair)
        assert pair[0].epoch == pair[1].epoch == parties[0].epoch == parties[1].epoch
        assert pair[0].bytes == 48 + 8 * recipe.correction_words
        assert pair[1].bytes == 48
        seen.add(pair[0].correlations.id)
    assert len(seen) == 6
    crossed = draw(parties, recipe)[0], draw(parties, recipe)[1]
    assert not hold_together(recipe, crossed)  # two dealings do not fit


def test_each_bundle_is_handed_out_once(parties: tuple[Stores, Stores]) -> None:
    recipe = plain(1)
    first, _ = draw(parties, recipe)
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(CorrelationMisuse, match="used or dropped before"):
            parties[1].claim(recipe, first.correlations.id, soon())
        assert time.monotonic() - started < PATIENCE / 2  # refused at once
    with pytest.raises(CorrelationMisuse, match="not dealt to this party"):
        parties[1].claim(recipe, bytes(16), time.monotonic() + AT_ONCE)
    taken: list[bytes] = []

    def take() -> None:
        taken.extend(parties[0].take(recipe, soon()).correlations.id for _ in range(20))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(taken)) == 80
    assert first.correlations.id not in taken
    for identity in reversed(taken[-5:]):
        parties[1].claim(recipe, identity, soon())
    assert parties[0].tallies().used == 81


def test_recipes_that_were_never_registered(parties: tuple[Stores, Stores]) -> None:
    odd = shared(37)
    parties[1].register(odd)  # as a party does when its half of a request arrives
    drawn = parties[0].take(odd, soon())
    assert hold_together(odd, (drawn, parties[1].claim(odd, drawn.correlations.id, soon())))


def test_one_party_alone_gets_nothing(parties: tuple[Stores, Stores]) -> None:
    until(lambda: parties[0].connected and parties[1].connected)
    with pytest.raises(CorrelationsExhausted, match="is connected"):
        parties[0].take(plain(3), time.monotonic() + AT_ONCE)
    assert parties[0].tallies().exhausted == 1
    with pytest.raises(MalformedRequest, match="SHA-256"):
        parties[0].take(Recipe("model", 1, (Square(1),)), soon())


def test_weight_masks_last_for_an_epoch(parties: tuple[Stores, Stores]) -> None:
    recipe, other = shared(1), shared(2)
    for stores in parties:
        stores.register(recipe, 2)
    epoch, seed = parties[0].masks(recipe, soon())
    assert (epoch, seed) == parties[0].masks(other, soon())
    assert seed != parties[1].masks(recipe, soon())[1]
    pair = draw(parties, other)
    assert (pair[0].epoch, pair[0].mask_seed) == (epoch, seed)
    # A party that comes anew begins an epoch; nothing of before is handed out.
    parties[1].close()
    restarted = Stores(1, parties[1]._address, None)
    restarted.start()
    until(lambda: parties[0].epoch == restarted.epoch != epoch)
    again = draw((parties[0], restarted), recipe)
    assert hold_together(recipe, again)
    assert again[0].mask_seed != seed
    restarted.close()


def test_stores_refill_in_the_background(parties: tuple[Stores, Stores]) -> None:
    recipe = plain(1)
    for _ in range(20):
        draw(parties, recipe)
    until(lambda: parties[0].levels()[0].bundles >= 3)
    for stores in parties:
        stores.register(recipe, 16, model="mine")
    until(lambda: parties[0].levels()[0].bundles >= 9)
    (level,) = parties[0].levels()
    assert (level.model, level.rows, level.wanted) == ("mine", 1, 16)
    assert level.bytes > 0


def test_closing_ends_those_who_wait(parties: tuple[Stores, Stores]) -> None:
    failed: list[type] = []

    def take() -> None:
        try:
            parties[0].take(plain(9), soon())
        except CorrelationsExhausted as error:
            failed.append(type(error))

    thread = threading.Thread(target=take)
    thread.start()
    until(lambda: parties[0].tallies().dry)
    parties[0].close()
    thread.join(PATIENCE)
    assert failed == [CorrelationsExhausted]


def longest_rise(values: list[int]) -> int:
    """Length of the longest increasing subsequence."""
    ends: list[int] = []
    for value in values:
        at = bisect_left(ends, value)
        ends[at : at + 1] = [value]
    return len(ends)


def test_whoever_waits_first_is_served_first(dealing: tuple[DealerProcess, str]) -> None:
    served: list[int] = []
    first, second = (Stores(party, dealing[1], None) for party in (0, 1))

    def take(turn: int) -> None:
        first.take(plain(3), soon())
        served.append(turn)

    threads = [threading.Thread(target=take, args=(turn,)) for turn in range(12)]
    try:
        for count, thread in enumerate(threads, 1):
            thread.start()
            until(lambda count=count: first.tallies().dry == count)  # type: ignore[misc]
        with pytest.raises(CorrelationsExhausted):  # one that gives up leaves its place to the next
            first.take(plain(3), time.monotonic() + 0.01)
        first.start()
        second.start()
        second.register(plain(3), 16)
        for thread in threads:
            thread.join(PATIENCE)
        # Some threads that have their bundles may be late to say so; the others are in order. Of 12 in any order, 9 are
        # so with a probability of 1 in 3,000.
        assert sorted(served) == list(range(12))
        assert longest_rise(served) >= 9
    finally:
        first.close()
        second.close()


def test_a_dealer_that_was_never_there(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    stores = Stores(0, address, None)
    stores.start()
    try:
        until(lambda: f"the dealer at {address} does not answer" in caplog.text)
        with pytest.raises(
            CorrelationsExhausted, match=rf"in time; the dealer at {address} has not answered since .* --dealer$"
        ):
            stores.take(plain(1), time.monotonic() + AT_ONCE)
        assert "ended the stream" not in caplog.text
    finally:
        stores.close()


def _in_fork(stores: Stores, recipe: Recipe, answers: multiprocessing.queues.SimpleQueue[str]) -> None:
    for call in (
        lambda: stores.take(recipe, time.monotonic()),
        lambda: stores.claim(recipe, bytes(16), time.monotonic()),
        lambda: stores.masks(recipe, time.monotonic()),
        lambda: stores.register(recipe),
    ):
        try:
            call()
            answers.put("handed out")
        except CorrelationMisuse as error:
            answers.put(error.message)


def test_a_fork_gets_nothing() -> None:
    # Without gRPC in it, which does not like forks: what is held came by hand.
    stores, recipe = Stores(0, "127.0.0.1:1", None), plain(1)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    with stores._changed:  # held by another thread while the fork is made
        child = context.Process(target=_in_fork, args=(stores, recipe, answers))
        child.start()
    child.join(PATIENCE)
    assert child.exitcode == 0
    assert [answers.get()[:32] for _ in range(4)] == ["stores: they belong to the proce"] * 4


# A dealer as a process.


class LocalDealer:
    """`secure-infer dealer` in a process of its own."""

    def __init__(self, address: str = "127.0.0.1:0", *options: str) -> None:
        command = [
            sys.executable,
            "-m",
            "secure_infer.cli",
            "dealer",
            "--listen",
            address,
            *(options or ("--insecure",)),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.ready = json.loads(self.process.stdout.readline())
        self.address: str = self.ready["address"]

    def __enter__(self) -> LocalDealer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode


@pytest.mark.parametrize(
    "arguments",
    [
        ["--insecure", "--metrics", "nowhere"],
        ["--tls-cert", "x", "--tls-key", "y", "--client-ca", "z"],
    ],
)
def test_wrong_use_is_one_line_and_status_two(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "secure_infer.cli", "dealer", "--listen", "127.0.0.1:0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, len(done.stderr.strip().splitlines())) == (2, "", 1)


def test_a_dealer_that_dies_and_comes_back() -> None:
    recipe = shared(1)
    with LocalDealer() as dealer, closing(running(dealer.address)) as running_stores:
        parties = next(running_stores)
        draw(parties, recipe)
        until(lambda: all(stores.levels()[0].bundles >= 3 for stores in parties))
        assert dealer.end(signal.SIGKILL) == -signal.SIGKILL
        until(lambda: not any(stores.connected for stores in parties))
        epoch, left = parties[0].epoch, parties[0].levels()[0].bundles
        for _ in range(left):  # what is held is as good as before
            drawn = parties[0].take(recipe, soon())
            assert hold_together(recipe, (drawn, parties[1].claim(recipe, drawn.correlations.id, soon())))
        with pytest.raises(CorrelationsExhausted, match="away"):
            parties[0].take(recipe, time.monotonic() + AT_ONCE)
        with LocalDealer(dealer.address) as again:
            pair = draw(parties, recipe)
            assert hold_together(recipe, pair)
            assert pair[0].epoch == parties[1].epoch != epoch
            assert again.end(signal.SIGTERM) == 0
            until(lambda: not parties[0].connected)


def test_a_dealer_needs_neither_seal_nor_torch() -> None:
    script = (
        "import sys, secure_infer_server.commands.dealer; "
        "print([m for m in ('tenseal', '_tenseal_cpp', 'torch', 'crypten') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


# TLS.


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return certs.make(tmp_path_factory.mktemp("pki"), ["localhost", "127.0.0.1"], "ward-7", 2)


def identity(pki: dict[str, Path], name: str) -> Identity:
    return Identity(pki[f"{name}.pem"], pki[f"{name}.key"], pki["ca.pem"])


def test_mutual_tls_from_end_to_end(pki: dict[str, Path]) -> None:
    files = {"--tls-cert": "dealer.pem", "--tls-key": "dealer.key", "--client-ca": "ca.pem"}
    options = [word for option, name in files.items() for word in (option, str(pki[name]))]
    identities = [identity(pki, f"party{party}") for party in (0, 1)]
    with LocalDealer("127.0.0.1:0", *options) as dealer:
        assert dealer.ready["tls"] is True
        with closing(running(dealer.address, *identities)) as running_stores:
            assert hold_together(shared(2), draw(next(running_stores), shared(2)))
        assert dealer.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("name", ["party1", "server"])
def test_nobody_else_passes_for_the_dealer(pki: dict[str, Path], name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The attack: the other party, on the same authority, answers at the dealer's address and would know every mask."""
    process = DealerProcess(Listening("127.0.0.1", 0, identity(pki, name)))
    stores = Stores(0, process.start(), identity(pki, "party0"))
    stores.start()
    try:
        until(lambda: "expected a dealer's" in caplog.text)
        assert process.dealer.figures().parties == (False, False)
        with pytest.raises(CorrelationsExhausted, match="has not answered since this party started"):
            stores.take(plain(1), time.monotonic() + AT_ONCE)
    finally:
        stores.close()
        process.stop()


def test_renewed_files_are_those_of_the_next_stream(pki: dict[str, Path], tmp_path: Path) -> None:
    foreign = certs.make(tmp_path / "foreign", ["localhost", "127.0.0.1"], "x", 2)
    own = Identity(tmp_path / "own.pem", tmp_path / "own.key", tmp_path / "ca.pem")

    def install(found: dict[str, Path]) -> None:
        for file, name in ((own.key, "party0.key"), (own.certificate, "party0.pem"), (own.authority, "ca.pem")):
            (tmp_path / "new").write_bytes(found[name].read_bytes())
            (tmp_path / "new").replace(file)

    install(foreign)  # which neither side takes
    process = DealerProcess(Listening("127.0.0.1", 0, identity(pki, "dealer")))
    address = process.start()
    pair = Stores(0, address, own), Stores(1, address, identity(pki, "party1"))
    for stores in pair:
        stores.start()
    try:
        until(lambda: process.dealer.figures().parties[1])
        assert not pair[0].connected
        install(pki)
        until(lambda: pair[0].connected)
    finally:
        for stores in pair:
            stores.close()
        process.stop()


def test_half_a_renewal_and_another_role_leave_the_way_to_the_dealer_as_it_was(
    pki: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Key and certificate are two files, and streams are made in between, too."""
    own = Identity(tmp_path / "own.pem", tmp_path / "own.key", pki["ca.pem"])
    for file in (own.key, own.certificate):
        file.write_bytes(pki[f"party0{file.suffix}"].read_bytes())
    files = subscription._watched(own, Role.PARTY_0)
    before = files.value
    for name, suffixes in (("party1", ["key"]), ("client", ["key", "pem"])):
        for suffix in suffixes:
            (tmp_path / f"own.{suffix}").write_bytes(pki[f"{name}.{suffix}"].read_bytes())
        assert not files.refresh()
        assert files.value is before
    assert "does not belong to the certificate" in caplog.text
    assert "expected a certificate with the role party:0, " in caplog.text


def test_files_that_do_not_belong_are_named_at_once(pki: dict[str, Path]) -> None:
    with pytest.raises(SettingsError, match="does not belong"):
        Stores(0, "127.0.0.1:1", Identity(pki["party0.pem"], pki["party1.key"], pki["ca.pem"]))
    with pytest.raises(SettingsError, match="--dealer"):
        Stores(0, "nowhere", None)


# Metrics.


def scrape(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def test_metrics(dealing: tuple[DealerProcess, str], parties: tuple[Stores, Stores]) -> None:
    recipe = shared(1)
    for stores in parties:
        stores.register(recipe, 4, model="mine", keep=True)
        stores.register(shared(5), model="mine")
    draw(parties, recipe)
    until(lambda: sum(level.bundles for level in parties[0].levels()) == 4)
    with (
        MetricsServer("127.0.0.1:0", StoreMetrics(parties[0])) as held,
        MetricsServer("127.0.0.1:0", DealerMetrics(dealing[0].dealer)) as dealt,
    ):
        found, at_dealer = scrape(held.address), scrape(dealt.address)
        with pytest.raises(SettingsError, match="--metrics"):
            MetricsServer(held.address)
    assert found['secure_infer_bundles_wanted{model="mine",rows="1"}'] == 4
    assert found['secure_infer_bundles_wanted{model="mine",rows="any"}'] == 1
    assert found["secure_infer_bundles_used_total"] == 1
    assert found["secure_infer_dealer_connected"] == 1
    assert at_dealer["secure_infer_dealt_bundles_total"] >= 4
    assert at_dealer['secure_infer_dealer_party_connected{party="1"}'] == 1
    assert at_dealer["secure_infer_dealer_mask_bytes"] == masks.mask_bytes(recipe.tensors())


def test_the_dealers_metrics_as_a_process() -> None:
    with LocalDealer("127.0.0.1:0", "--insecure", "--metrics", "127.0.0.1:0", "--json") as dealer:
        assert scrape(dealer.ready["metrics"])["secure_infer_dealer_epochs_total"] == 0
        assert dealer.ready["pid"] == dealer.process.pid != os.getpid()
        assert dealer.end(signal.SIGINT) == 0


def test_kinds_of_every_need_are_known_to_the_dealer() -> None:
    script = "import secure_infer_server.commands.dealer; from secure_infer.mpc.correlations import KINDS; print(*sorted(KINDS))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    import secure_infer.mpc.program  # noqa: F401 (whatever a program can ask for)

    def kinds(need: type[Need]) -> set[str]:
        return {need.kind} - {""} | {kind for sub in need.__subclasses__() for kind in kinds(sub)}

    assert set(done.stdout.split()) >= kinds(Need)
