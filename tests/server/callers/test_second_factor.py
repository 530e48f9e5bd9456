"""One-time codes: wrong, replayed, from before the start, locked out; and raced for."""

from __future__ import annotations

import threading
from pathlib import Path

import pyotp
import pytest

from secure_infer.errors import PermissionDenied, SecondFactorNeeded, SettingsError
from secure_infer_server.callers.caller import Caller
from secure_infer_server.callers.permissions import Permissions, PermissionSettings
from secure_infer_server.callers.second_factor import SecondFactor, SecondFactorSettings, read_secrets

ANNA, OTTO = "cn:it-anna", "jwt:https://login.example:otto"
START = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def secrets() -> dict[str, str]:
    return {ANNA: pyotp.random_base32(), OTTO: pyotp.random_base32()}


@pytest.fixture
def path(tmp_path: Path, secrets: dict[str, str]) -> Path:
    found = tmp_path / "codes.toml"
    found.touch(0o600)
    found.write_text("".join(f'"{name}" = "{secret}"\n' for name, secret in secrets.items()))
    return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def second(path: Path, clock: Clock) -> SecondFactor:
    """As a minute and more after a start."""
    made = SecondFactor(SecondFactorSettings(path), clock)
    clock.now += 90
    return made


def code(secrets: dict[str, str], clock: Clock, steps: int = 0, who: str = ANNA) -> str:
    return pyotp.TOTP(secrets[who]).at(clock.now + 30 * steps)


def wrong(secrets: dict[str, str], clock: Clock) -> str:
    near = {code(secrets, clock, steps) for steps in range(-1, 2)}
    return next(text for text in ("000000", "000001", "000002", "000003") if text not in near)


def test_a_code_is_taken_once(second: SecondFactor, secrets: dict[str, str], clock: Clock) -> None:
    present = code(secrets, clock)
    second.require(ANNA, present)
    for again in (present, code(secrets, clock, -1)):
        with pytest.raises(SecondFactorNeeded, match="taken once") as caught:
            second.require(ANNA, again)
    assert 1 <= int(caught.value.details["seconds"]) <= 30
    second.require(OTTO, code(secrets, clock, who=OTTO))  # another's is another's
    clock.now += 30
    second.require(ANNA, code(secrets, clock))


def test_clocks_may_differ_by_a_step(second: SecondFactor, secrets: dict[str, str], clock: Clock) -> None:
    second.require(ANNA, code(secrets, clock, -1))
    second.require(ANNA, code(secrets, clock, +1))
    clock.now += 600
    for steps in (-2, 2):
        with pytest.raises(SecondFactorNeeded, match="wrong, or of another time"):
            second.require(ANNA, code(secrets, clock, steps))


def test_wrong_missing_and_not_enrolled(second: SecondFactor, secrets: dict[str, str], clock: Clock) -> None:
    for bad in (wrong(secrets, clock), "12345", "1234567", "٣٤٥٦٧٨", "x" * 5000):
        with pytest.raises(SecondFactorNeeded, match="wrong") as caught:
            second.require(OTTO if len(bad) == 5000 else ANNA, bad)
        assert bad not in caught.value.message
    with pytest.raises(SecondFactorNeeded, match="x-secure-infer-otp"):
        second.require(ANNA, "")
    with pytest.raises(SecondFactorNeeded, match="has none"):
        second.require("cn:ward-7", code(secrets, clock))
    with pytest.raises(SecondFactorNeeded, match="wrong"):
        second.require(OTTO, code(secrets, clock))  # Anna's


def test_lock_out(second: SecondFactor, secrets: dict[str, str], clock: Clock) -> None:
    waits = []
    for _ in range(3):
        for _ in range(5):
            with pytest.raises(SecondFactorNeeded, match="wrong"):
                second.require(ANNA, wrong(secrets, clock))
        with pytest.raises(SecondFactorNeeded, match=r"locked out for \d+ seconds") as caught:
            second.require(ANNA, code(secrets, clock))  # the right one is no better
        waits.append(int(caught.value.details["seconds"]))
        second.require(OTTO, code(secrets, clock, who=OTTO))
        clock.now += waits[-1]
    assert waits == [300, 600, 1200]
    second.require(ANNA, code(secrets, clock))
    clock.now += 30
    for _ in range(5):  # a right one starts the count anew
        with pytest.raises(SecondFactorNeeded, match="wrong"):
            second.require(ANNA, wrong(secrets, clock))
    clock.now += 300
    second.require(ANNA, code(secrets, clock))


def test_guessing_for_a_day(second: SecondFactor, secrets: dict[str, str], clock: Clock) -> None:
    """What the module's docstring says an attacker with the first factor gets."""
    tries: list[int] = []
    for day in range(4):
        tries.append(0)
        while clock.now < START + 90 + 86_400 * (day + 1):
            try:
                second.require(ANNA, wrong(secrets, clock))
            except SecondFactorNeeded as refusal:
                if "seconds" in refusal.details:
                    clock.now += int(refusal.details["seconds"])
                else:
                    tries[-1] += 1
    assert tries[0] <= 45
    assert max(tries[1:]) <= 10


def test_no_code_from_before_the_start(path: Path, secrets: dict[str, str], clock: Clock) -> None:
    before = SecondFactor(SecondFactorSettings(path), clock)
    clock.now += 60
    used = code(secrets, clock)
    before.require(ANNA, used)
    restarted = SecondFactor(SecondFactorSettings(path), clock)
    with pytest.raises(SecondFactorNeeded, match="before the server's start"):
        restarted.require(ANNA, used)
    clock.now += 60
    restarted.require(ANNA, code(secrets, clock))


def test_of_many_at_once_one_is_taken(second: SecondFactor, secrets: dict[str, str], clock: Clock) -> None:
    present, taken, gate = code(secrets, clock), [], threading.Barrier(8)

    def race() -> None:
        gate.wait()
        try:
            second.require(ANNA, present)
        except SecondFactorNeeded:
            return
        taken.append(1)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1


def test_secrets_of_others_eyes_or_too_short(path: Path, second: SecondFactor) -> None:
    for mode in (0o640, 0o604):
        path.chmod(mode)
        with pytest.raises(SettingsError, match="chmod 600"):
            read_secrets(path)
    path.chmod(0o600)
    for text in (f'"{ANNA}" = "JBSWY3DPEHPK3PXP"', f'"{ANNA}" = "not base 32!"', f'"{ANNA}" = 7', "JBSWY3DPEHPK3PXP"):
        path.write_text(text)
        with pytest.raises(SettingsError) as caught:
            read_secrets(path)
        assert "JBSWY" not in caught.value.message
        assert not second.watched.refresh()  # the old ones stay
    path.write_text("")
    assert second.watched.refresh()
    with pytest.raises(SecondFactorNeeded, match="has none"):
        second.require(ANNA, "000000")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_secrets(path.with_name("none"))


def test_settings(path: Path) -> None:
    for arguments, message in (({"attempts": 0}, "attempts"), ({"lockout": 1.0}, "lock-out")):
        with pytest.raises(SettingsError, match=message):
            SecondFactorSettings(path, **arguments)  # type: ignore[arg-type]


def test_permissions_ask_for_it(path: Path, secrets: dict[str, str], tmp_path: Path, clock: Clock) -> None:
    rules = tmp_path / "policy.toml"
    rules.write_text(f"[roles]\noperator = ['{ANNA}']\n[[allow]]\nroles = ['operator']\nmethods = ['KeyService/*']\n")
    permissions = Permissions(PermissionSettings(rules, SecondFactorSettings(path)), clock)
    clock.now += 90
    own, others = "KeyService/DeleteKeys", "KeyService/DeleteKeys:others"
    permissions.require(Caller(ANNA, "client"), own)
    with pytest.raises(SecondFactorNeeded, match="needs one"):
        permissions.require(Caller(ANNA, "client"), others)
    present = code(secrets, clock)
    with pytest.raises(PermissionDenied):  # and the code is not used up
        permissions.require(Caller(ANNA, "client", code=present), "AuditService/Export")
    permissions.require(Caller(ANNA, "client", code=present), others)
    with pytest.raises(SecondFactorNeeded, match="taken once"):
        permissions.require(Caller(ANNA, "client", code=present), others)
