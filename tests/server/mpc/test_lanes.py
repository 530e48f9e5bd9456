"""Lanes between two parties, over TLS and plain sockets: rounds, refusals, losses, and who may not talk on them."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_infer.errors import (
    CorrelationMisuse,
    HalvesDiffer,
    InternalFault,
    MalformedRequest,
    PeerFailure,
    SettingsError,
)
from secure_infer.mpc.link import opened
from secure_infer_server.commands import certs
from secure_infer_server.mpc.follower import FollowerLanes
from secure_infer_server.mpc.frames import HELLO_BYTES, Frame, Hello, Kind
from secure_infer_server.mpc.lane import Lane, Patience
from secure_infer_server.mpc.leader import _HANDSHAKES, LeaderLanes
from secure_infer_server.settings import Tls
from shared import until

QUICK = Patience(message=0.3, handshake=1.0, retry=(0.01, 0.05))
SLOW = Patience(message=20.0, handshake=20.0, retry=(0.01, 0.05))
Serve = Callable[[bytes, Lane], None]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    own, foreign = tmp_path_factory.mktemp("own"), tmp_path_factory.mktemp("foreign")
    strange = {f"foreign-{name}": path for name, path in certs.make(foreign, ["localhost"], "x", 2).items()}
    return certs.make(own, ["localhost", "127.0.0.1"], "ward-7", 2) | strange


def tls(pki: dict[str, Path], name: str) -> Tls:
    return Tls(pki[f"{name}.pem"], pki[f"{name}.key"], pki["ca.pem"])


@pytest.fixture(params=["plain", "tls"])
def pair(request: pytest.FixtureRequest, pki: dict[str, Path]) -> Any:
    """A function: both ends, with what the follower serves."""

    @contextmanager
    def up(serve: Serve, lanes: int = 1, patience: Patience = SLOW) -> Iterator[tuple[LeaderLanes, FollowerLanes]]:
        secure = request.param == "tls"
        leader = LeaderLanes("127.0.0.1:0", tls(pki, "party0") if secure else None, lanes=lanes, patience=patience)
        address = leader.start()
        own = tls(pki, "party1") if secure else None
        follower = FollowerLanes(address, own, serve, lanes=lanes, patience=patience)
        follower.start()
        try:
            assert leader.wait_up(10)
            assert follower.wait_up(10)
            yield leader, follower
        finally:
            follower.close()
            leader.close()

    return up


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def reversed_rounds(start: bytes, lane: Lane) -> None:
    """START names the sizes of the rounds; each answer is 255 minus what the leader sends."""
    for size in map(int, start.split()):
        own = np.full(size, 255, np.uint8) - pattern(size)
        assert bytes(lane.exchange(own.tobytes())) == pattern(size).tobytes()


def pattern(size: int) -> np.ndarray:
    return (np.arange(size) % 251).astype(np.uint8)


def echo(start: bytes, lane: Lane) -> None:
    lane.exchange(start)


def asked(leader: LeaderLanes, start: bytes = b"hello", seconds: float = 10.0) -> bytes:
    with leader.lead(start, soon(seconds)) as lane:
        return bytes(lane.exchange(start))


def test_rounds_of_many_sizes(pair: Any) -> None:
    sizes = [0, 1, 7, 1000, 0, 16384, 65536, 65537, 1 << 20, 20 << 20, 3]
    with pair(reversed_rounds) as (leader, _):
        for _ in range(2):
            with leader.lead(" ".join(map(str, sizes)).encode(), soon(60)) as lane:
                for size in sizes:
                    found = np.frombuffer(lane.exchange(pattern(size).tobytes()), np.uint8)
                    assert (found == 255 - pattern(size)).all()
                assert (lane.rounds, lane.sent) == (len(sizes), sum(sizes))
                assert lane.waited > 0
        assert leader.level == 1


def test_a_lane_is_a_link(pair: Any) -> None:
    shares = np.arange(5, dtype=np.uint64), np.arange(5, dtype=np.uint64) << np.uint64(60)

    def serve(_: bytes, lane: Lane) -> None:
        opened(lane, shares[1])

    with pair(serve) as (leader, _), leader.lead(b"", soon()) as lane:
        (found,) = opened(lane, shares[0])
        np.testing.assert_array_equal(found, shares[0] + shares[1])


def test_programs_without_a_round(pair: Any) -> None:
    served = []
    with pair(lambda start, lane: served.append(start)) as (leader, _):
        with leader.lead(b"one", soon()) as lane:
            lane.agree()
            lane.agree()
            with pytest.raises(PeerFailure, match="over"):
                lane.exchange(b"")
        with leader.lead(b"two", soon()):
            pass
        assert served == [b"one", b"two"]
        assert leader.level == 1


@pytest.mark.parametrize("error", [HalvesDiffer("other digest"), CorrelationMisuse("twice"), PeerFailure("no half")])
def test_a_refusal_arrives_as_itself_and_keeps_the_lane(pair: Any, error: Exception) -> None:
    ended = threading.Event()

    def serve(start: bytes, lane: Lane) -> None:
        if start.startswith(b"no"):
            raise error
        echo(start, lane)

    with pair(serve) as (leader, follower):
        (kept,) = follower._up.values()
        for size in (0, 1, 60, 100_000, 8 << 20):
            with pytest.raises(type(error), match=str(error)):
                with leader.lead(b"no", soon()) as lane:
                    lane.exchange(bytes(size))
            assert asked(leader) == b"hello"
        for waits in (True, False):
            with pytest.raises(type(error)):
                with leader.lead(b"no", soon()) as lane:
                    if waits:
                        ended.wait(0.05)  # until the refusal is there before anything is sent
                        lane.agree()
            assert asked(leader) == b"hello"
        assert list(follower._up.values()) == [kept]


def test_an_unforeseen_error_is_an_id_at_the_leader(pair: Any, caplog: pytest.LogCaptureFixture) -> None:
    def serve(start: bytes, lane: Lane) -> None:
        raise ValueError("the patient's name")

    with pair(serve) as (leader, _):
        with pytest.raises(InternalFault, match="under id") as caught:
            asked(leader)
        assert "patient" not in caught.value.message
        logged = [getattr(record, "fault", "") for record in caplog.records]
        assert caught.value.message.rpartition(" ")[2] in logged


def test_an_error_after_a_round_ends_the_lane_and_a_new_one_comes(pair: Any) -> None:
    def serve(start: bytes, lane: Lane) -> None:
        lane.exchange(b"12345678")
        if start == b"fail":
            raise HalvesDiffer("too late")

    with pair(serve) as (leader, follower):
        old = next(iter(follower._up.values()))
        with pytest.raises(PeerFailure):
            with leader.lead(b"fail", soon()) as lane:
                lane.exchange(b"abcdefgh")
                lane.exchange(b"abcdefgh")
        with leader.lead(b"", soon()) as lane:
            assert lane.exchange(b"abcdefgh") == b"12345678"
        assert next(iter(follower._up.values())) is not old


def test_a_leader_that_fails_ends_the_lane(pair: Any) -> None:
    with pair(echo) as (leader, _):
        with pytest.raises(ZeroDivisionError):
            with leader.lead(b"hello", soon()):
                raise ZeroDivisionError
        assert asked(leader) == b"hello"


@pytest.mark.parametrize("sizes", [(8, 9), (0, 1), (1 << 20, 1 << 21), (100, 1 << 21)])
def test_messages_of_different_lengths(pair: Any, sizes: tuple[int, int]) -> None:
    failed: list[PeerFailure] = []

    def serve(start: bytes, lane: Lane) -> None:
        if start == b"hello":
            return echo(start, lane)
        try:
            lane.exchange(bytes(sizes[1]))
        except PeerFailure as error:
            failed.append(error)
            raise

    with pair(serve) as (leader, _):
        with pytest.raises(PeerFailure, match=r"expected DATA 1\.1|closed|connection"):
            with leader.lead(b"", soon()) as lane:
                lane.exchange(bytes(sizes[0]))
        assert asked(leader) == b"hello"
        assert failed


def test_a_follower_that_swallows_its_failure_does_not_go_on(pair: Any) -> None:
    def serve(start: bytes, lane: Lane) -> None:
        try:
            lane.exchange(start)
        except PeerFailure:
            pass

    with pair(serve) as (leader, _):
        with pytest.raises(PeerFailure):
            with leader.lead(b"four", soon()) as lane:
                lane.exchange(b"sixsix")
        assert asked(leader) == b"hello"


def test_rounds_that_only_one_party_has(pair: Any) -> None:
    def serve(start: bytes, lane: Lane) -> None:
        for _ in range(int(start)):
            lane.exchange(b"12345678")

    with pair(serve, patience=QUICK) as (leader, _):
        for theirs, ours in ((1, 2), (2, 1), (0, 1), (1, 0)):
            try:
                with leader.lead(str(theirs).encode(), soon()) as lane:
                    for _ in range(ours):
                        lane.exchange(b"12345678")
            except PeerFailure:
                pass

            def recovered() -> bool:  # the surplus message may reach the next request, and fails it
                try:
                    with leader.lead(b"1", soon()) as lane:
                        return bytes(lane.exchange(b"abcdefgh")) == b"12345678"
                except PeerFailure:
                    return False

            until(recovered)


def test_a_silent_peer_is_given_up_in_time(pair: Any) -> None:
    wake = threading.Event()

    def serve(start: bytes, lane: Lane) -> None:
        if start == b"sleep":
            wake.wait(10)
        echo(start, lane)

    with pair(serve, patience=QUICK) as (leader, _):
        with pytest.raises(PeerFailure, match="in time"):
            asked(leader, b"sleep")
        with pytest.raises(PeerFailure, match=r"no free lane .*0 of 1 up"):
            asked(leader, seconds=0.1)
        wake.set()
        assert asked(leader) == b"hello"
        wake.clear()
        with pytest.raises(PeerFailure, match="in time"):
            with leader.lead(b"sleep", soon(0.05)) as lane:  # the request's own deadline is shorter
                lane.exchange(b"sleep")
        wake.set()
        assert asked(leader) == b"hello"


def test_a_peer_that_is_gone_is_seen_before_a_request_is_lost(pair: Any) -> None:
    with pair(echo, lanes=3) as (leader, follower):
        for _ in range(5):
            for lane in list(follower._up.values()):
                lane.kill()
            time.sleep(0.005)
            assert asked(leader) == b"hello"
        until(lambda: leader.level == 3)


def test_a_follower_restarts(pair: Any, pki: dict[str, Path]) -> None:
    with pair(echo, lanes=2) as (leader, follower):
        follower.close()
        until(lambda: leader.level == 0)
        with pytest.raises(PeerFailure, match="0 of 2 up"):
            asked(leader, seconds=0.05)
        again = FollowerLanes(
            leader.address, tls(pki, "party1") if leader._security else None, echo, lanes=2, patience=SLOW
        )
        again.start()
        try:
            assert asked(leader) == b"hello"
        finally:
            again.close()


def test_renewed_files_are_those_of_the_next_lane(
    pki: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    own = Tls(tmp_path / "own.pem", tmp_path / "own.key", pki["ca.pem"])

    def install(name: str) -> None:
        for file in (own.key, own.certificate):
            (tmp_path / "new").write_bytes(pki[f"{name}{file.suffix}"].read_bytes())
            (tmp_path / "new").replace(file)

    install("party1")
    leader = LeaderLanes("127.0.0.1:0", tls(pki, "party0"), lanes=1, patience=SLOW)
    follower = FollowerLanes(leader.start(), own, echo, lanes=1, patience=SLOW)
    follower.start()
    try:
        assert asked(leader) == b"hello"
        install("party0")  # another's, by mistake
        assert asked(leader) == b"hello"  # on the lane that stands
        with suppress(PeerFailure), leader.lead(b"hello", soon()):
            raise PeerFailure("it is lost")
        until(
            lambda: (
                "the earlier one stays in force: --tls-cert: expected a certificate with the role party:1"
                in caplog.text
            )
        )
        assert asked(leader) == b"hello"
        caplog.clear()
        install("party1")
        with suppress(PeerFailure), leader.lead(b"hello", soon()):
            raise PeerFailure("it is lost")
        until(lambda: "certificates of the link to the other party: read again" in caplog.text)
        assert asked(leader) == b"hello"
    finally:
        follower.close()
        leader.close()


def test_a_second_party_1_is_refused_until_the_first_has_gone(
    pair: Any, pki: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with pair(echo, lanes=2) as (leader, follower):
        assert "party 1 is there: 2 of 2 lanes are up" in caplog.text
        own = tls(pki, "party1") if leader._security else None
        second = FollowerLanes(leader.address, own, reversed_rounds, lanes=2, patience=SLOW)
        second.start()
        try:
            until(lambda: "the other party: another process already serves as party 1" in caplog.text)
            assert not second.wait_up(0.2)
            assert asked(leader) == b"hello"
            assert caplog.text.count("lane was refused: another process already serves") == 1
            follower.close()
            assert second.wait_up(10)
            with leader.lead(b"4", soon()) as lane:
                assert bytes(lane.exchange(pattern(4).tobytes())) == (255 - pattern(4)).tobytes()
        finally:
            second.close()


def test_different_numbers_of_lanes_are_said_at_both_ends(
    pair: Any, pki: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with pair(echo, lanes=1) as (leader, follower):
        follower.close()
        until(lambda: leader.level == 0)
        own = tls(pki, "party1") if leader._security else None
        other = FollowerLanes(leader.address, own, echo, lanes=3, patience=SLOW)
        other.start()
        try:
            reason = "--lanes: party 0 has 1, party 1 has 3; give both the same number"
            until(lambda: f"refused: {reason}" in caplog.text and f"refused: the other party: {reason}" in caplog.text)
            with pytest.raises(PeerFailure, match=f"is party 1 running.*last: a lane was refused: {reason}"):
                asked(leader, seconds=0.05)
        finally:
            other.close()
        right = FollowerLanes(leader.address, own, echo, lanes=1, patience=SLOW)
        right.start()
        assert right.wait_up(10)
        right.close()
        until(lambda: leader.level == 0)
        with pytest.raises(PeerFailure, match=r"is party 1 running\?$"):  # what was wrong before is mended
            asked(leader, seconds=0.05)


def test_a_party_that_is_alone_says_where_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    leader = LeaderLanes("127.0.0.1:0", None, lanes=1)
    leader.start()
    try:
        with pytest.raises(PeerFailure, match=rf"0 of 1 up\); party 0 listens for party 1 at {leader.address}; nobody"):
            asked(leader, seconds=0.05)
    finally:
        leader.close()
    follower = FollowerLanes(leader.address, None, echo, lanes=2, patience=QUICK)
    follower.start()
    try:
        until(lambda: f"waiting for party 0 at {leader.address}" in caplog.text)
        time.sleep(0.1)
        assert caplog.text.count("waiting for party 0") == 1
        assert "WARNING" not in caplog.text
    finally:
        follower.close()


def test_requests_on_several_lanes_do_not_mix(pair: Any) -> None:
    def serve(start: bytes, lane: Lane) -> None:
        for turn in range(5):
            lane.exchange(start + bytes([turn]))

    wrong = []

    def client(name: int) -> None:
        for number in range(20):
            start = struct.pack("<II", name, number)
            with leader.lead(start, soon(30)) as lane:
                for turn in range(5):
                    if lane.exchange(bytes(len(start) + 1)) != start + bytes([turn]):
                        wrong.append(start)

    with pair(serve, lanes=3) as (leader, _):
        threads = [threading.Thread(target=client, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert leader.level == 3


def test_zero_sharing_is_one_stream_a_request_and_never_comes_again(pair: Any) -> None:
    theirs: list[bytes] = []

    def serve(start: bytes, lane: Lane) -> None:
        if start == b"no":
            raise HalvesDiffer("no")
        theirs.append(lane.zero.words(4).tobytes() + lane.zero.words(2).tobytes())
        lane.exchange(b"")

    ours: list[bytes] = []
    with pair(serve, lanes=2) as (leader, follower):
        for turn in range(3):
            with ExitStack() as both:
                for _ in range(2):
                    lane = both.enter_context(leader.lead(b"", soon()))
                    ours.append(lane.zero.words(6).tobytes())
                    lane.exchange(b"")
            with pytest.raises(HalvesDiffer), leader.lead(b"no", soon()) as lane:
                lane.zero.words(3)  # drawn at one end alone, and the ends stay together
            if turn == 1:
                for lost in list(follower._up.values()):
                    lost.kill()
                until(lambda: len(follower._up) == 2 and leader.level == 2)
    assert sorted(ours) == sorted(theirs)
    assert len({stream[:16] for stream in ours}) == 6


def test_a_start_that_is_too_long(pair: Any) -> None:
    with pair(echo) as (leader, _):
        with pytest.raises(MalformedRequest, match="at most 65536"):
            with leader.lead(bytes(65537), soon()):
                pass
        assert asked(leader, bytes(65536)) == bytes(65536)


def context_of(pki: dict[str, Path], name: str | None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(pki["ca.pem"])
    if name:
        context.load_cert_chain(pki[f"{name}.pem"], pki[f"{name}.key"])
    if version:
        context.maximum_version = version
    return context


@pytest.mark.parametrize("name", [None, "party0", "client", "foreign-party1", "old TLS"])
def test_only_party_1_gets_a_lane(pki: dict[str, Path], name: str | None) -> None:
    leader = LeaderLanes("127.0.0.1:0", tls(pki, "party0"), lanes=1, patience=QUICK)
    leader.start()
    old = name == "old TLS"
    context = context_of(pki, "party1" if old else name, ssl.TLSVersion.TLSv1_2 if old else None)
    try:
        with pytest.raises(OSError):
            with socket.create_connection(("127.0.0.1", int(leader.address.rpartition(":")[2])), 5) as plain:
                with context.wrap_socket(plain) as connected:
                    connected.sendall(Hello(1, 0, 1, bytes(16), bytes(32)).pack())
                    if not connected.recv(HELLO_BYTES):
                        raise ConnectionResetError
        assert leader.level == 0
    finally:
        leader.close()


@pytest.mark.parametrize("name", ["party1", "dealer", "server", "foreign-party0"])
def test_party_1_talks_to_party_0_alone(
    pki: dict[str, Path], name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:  # an impostor does not mind its own role
        patched.setattr("secure_infer_server.mpc.roles.require_own", lambda *_: None)
        impostor = LeaderLanes("127.0.0.1:0", tls(pki, name), lanes=1, patience=QUICK)
    # It takes party 1 in: who has to refuse is party 1.
    follower = FollowerLanes(impostor.start(), tls(pki, "party1"), echo, lanes=1, patience=QUICK)
    follower.start()
    try:
        until(lambda: "expected a certificate of party:0" in caplog.text or "CERTIFICATE_VERIFY" in caplog.text)
        assert not follower.wait_up(0.1)
    finally:
        follower.close()
        impostor.close()


def test_strangers_do_not_keep_the_peer_out(pki: dict[str, Path]) -> None:
    leader = LeaderLanes("127.0.0.1:0", tls(pki, "party0"), lanes=2, patience=SLOW)
    host, _, port = leader.start().rpartition(":")
    follower = FollowerLanes(leader.address, tls(pki, "party1"), echo, lanes=2, patience=SLOW)
    with ExitStack() as held:
        for turn in range(_HANDSHAKES + 20):
            stranger = held.enter_context(socket.create_connection((host, int(port)), 5))
            stranger.sendall((b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", bytes(5000))[turn % 4])
        follower.start()
        try:
            assert leader.wait_up(10)
            assert asked(leader) == b"hello"
        finally:
            follower.close()
            leader.close()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: party\r\n" + bytes(100),
        Frame(Kind.START, 1, 0, 50).pack() + bytes(50),
        Hello(0, 0, 1, bytes(16), bytes(32)).pack(),
        Hello(1, 1, 1, bytes(16), bytes(32)).pack(),
        Hello(1, 0, 1, bytes(16), bytes(32)).pack().replace(b"SI-LANES", b"SI-OTHER"),
    ],
)
def test_a_wrong_hello_is_closed(data: bytes) -> None:
    leader = LeaderLanes("127.0.0.1:0", None, lanes=1, patience=QUICK)
    host, _, port = leader.start().rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 5) as connected:
            connected.sendall(data)
            try:
                assert connected.recv(1) == b""
            except ConnectionResetError:
                pass
        assert leader.level == 0
    finally:
        leader.close()


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<IIQQ", 99, 0, 1, 0),
        struct.pack("<IIQQ", Kind.DATA, 1, 1, 1 << 62),
        struct.pack("<IIQQ", Kind.DATA, 1, 2, 5) + b"hello",
        struct.pack("<IIQQ", Kind.DATA, 1, 9, 5) + b"hello",
        struct.pack("<IIQQ", Kind.START, 0, 1, 5) + b"hello",
        struct.pack("<IIQQ", Kind.REFUSED, 0, 2, 5) + b"hello",
        struct.pack("<IIQQ", Kind.REFUSED, 0, 1, 2) + b"hello",
        struct.pack("<IIQQ", Kind.REFUSED, 0, 1, 5) + b"hello",
        struct.pack("<IIQQ", Kind.REFUSED, 0, 1, 3) + b"[1]",
        struct.pack("<IIQQ", Kind.AGREED, 0, 1, 0),
    ],
)
def test_a_peer_that_talks_nonsense(data: bytes) -> None:
    leader = LeaderLanes("127.0.0.1:0", None, lanes=1, patience=QUICK)
    host, _, port = leader.start().rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 5) as peer:
            peer.sendall(Hello(1, 0, 1, bytes(16), bytes(32)).pack())
            assert leader.wait_up(5)
            peer.recv(HELLO_BYTES)
            with pytest.raises(PeerFailure):
                with leader.lead(b"hello", soon()) as lane:
                    peer.sendall(data)
                    lane.exchange(b"hello")
    finally:
        leader.close()


@pytest.mark.parametrize(
    "data",
    [
        Frame(Kind.START, 2, 0, 0).pack(),
        Frame(Kind.START, 1, 1, 0).pack(),
        Frame(Kind.DATA, 0, 1, 5).pack() + b"hello",
        Frame(Kind.AGREED, 1, 0, 0).pack(),
        struct.pack("<IIQQ", Kind.START, 0, 1, 65537),
        # Refused, and then more than the one message that may be on its way.
        Frame(Kind.START, 1, 0, 2).pack() + b"no" + 2 * (Frame(Kind.DATA, 1, 1, 5).pack() + b"hello"),
    ],
)
def test_a_leader_that_talks_nonsense(data: bytes) -> None:
    served = []

    def refuse(start: bytes, lane: Lane) -> None:
        served.append(start)
        raise HalvesDiffer("no")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        follower = FollowerLanes(f"127.0.0.1:{listener.getsockname()[1]}", None, refuse, lanes=1, patience=QUICK)
        follower.start()
        try:
            for _ in range(2):  # it comes again
                peer, _ = listener.accept()
                with peer:
                    peer.settimeout(5)
                    assert len(peer.recv(HELLO_BYTES, socket.MSG_WAITALL)) == HELLO_BYTES
                    peer.sendall(Hello(0, 0, 1, bytes(16), bytes(32)).pack() + data)
                    try:
                        while peer.recv(1000):
                            pass
                    except ConnectionResetError:
                        pass
        finally:
            follower.close()
    assert set(served) <= {b"no"}


def test_a_request_refused_for_its_deadline_keeps_the_lane(pair: Any) -> None:
    def serve(start: bytes, lane: Lane) -> None:
        if start == b"late":
            lane.deadline = time.monotonic() - 1
            raise HalvesDiffer("the other half did not come")
        echo(start, lane)

    with pair(serve) as (leader, follower):
        kept = list(follower._up.values())
        with pytest.raises(HalvesDiffer):
            with leader.lead(b"late", soon()) as lane:
                time.sleep(0.05)
                lane.exchange(bytes(1 << 20))
        assert asked(leader) == b"hello"
        assert list(follower._up.values()) == kept


def test_settings_are_checked(pki: dict[str, Path]) -> None:
    with pytest.raises(SettingsError, match="loopback only"):
        LeaderLanes("0.0.0.0:0", None)
    with pytest.raises(SettingsError, match="authority"):
        LeaderLanes("127.0.0.1:0", Tls(pki["party0.pem"], pki["party0.key"]))
    with pytest.raises(SettingsError, match="does not belong"):
        FollowerLanes("127.0.0.1:1", Tls(pki["party1.pem"], pki["party0.key"], pki["ca.pem"]), echo)
    with pytest.raises(SettingsError, match="1 to 64"):
        LeaderLanes("127.0.0.1:0", None, lanes=0)
    first = LeaderLanes("127.0.0.1:0", None)
    try:
        with pytest.raises(SettingsError, match="cannot listen"):
            LeaderLanes(first.start(), None).start()
    finally:
        first.close()
