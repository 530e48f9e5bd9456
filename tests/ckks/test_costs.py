"""Laws, work, foreign figures, links, and the cache of what was measured; one real calibration of two small rings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_infer.ckks import calibration, laws
from secure_infer.ckks.calibration import Calibration, measure, unit_costs
from secure_infer.ckks.costs import MAX_JSON_CHARACTERS, SCALAR, Operation, Step, UnitCosts, Work
from secure_infer.ckks.link import PRESETS, Link, estimate
from secure_infer.errors import InternalFault, PlanRefused, SettingsError

DEGREES = (2048, 4096, 8192, 16384, 32768)
LAWS = [laws.PASS, laws.TRANSFORMS, laws.KEY_SWITCH, laws.ENCRYPTION, laws.BLINDING]
RING = [operation for operation in Operation if operation not in SCALAR]


def flat(seconds: float = 1e-3) -> UnitCosts:
    """Every ring operation costs `seconds` at N = 8192 with one prime, every element a microsecond."""
    ring = {Step(operation, 8192, 1): seconds for operation in RING}
    return UnitCosts(ring | {Step(operation): 1e-6 for operation in SCALAR})


# Laws.


@pytest.mark.parametrize("law", LAWS)
def test_a_law_finds_its_own_weights(law: laws.Law) -> None:
    weights = [3e-9, 2e-8, 5e-5][: len(law)]
    points = [(n, k, laws.value(law, weights, n, k)) for n in DEGREES for k in (1, 2, 4)]
    assert laws.fit(law, points) == pytest.approx(weights, rel=1e-6)


def test_a_key_switch_counts_its_transforms() -> None:
    """One to four primes: 6, 12, 20, 30 transforms."""
    key_switch = laws.KEY_SWITCH[0]
    assert [key_switch(8192, k) / (8192 * 13) for k in (1, 2, 3, 4)] == [6, 12, 20, 30]


measurements = st.lists(
    st.tuples(st.sampled_from(DEGREES), st.integers(1, 43), st.floats(1e-15, 3599.0)), min_size=1, max_size=6
)


@given(st.sampled_from(LAWS), measurements, st.sampled_from(DEGREES[:-1]), st.integers(1, 42))
def test_a_law_is_positive_and_grows(law: laws.Law, points: list[tuple[int, int, float]], n: int, k: int) -> None:
    weights = laws.fit(law, points)
    here = laws.value(law, weights, n, k)
    assert 0 < here < math.inf
    assert here <= laws.value(law, weights, 2 * n, k)
    assert here <= laws.value(law, weights, n, k + 1)


def test_one_measurement_scales_the_leading_term() -> None:
    assert flat().seconds(Operation.MULTIPLY_PLAIN, 16384, 3) == pytest.approx(6e-3)
    assert flat().law_error == pytest.approx(1)


# Work.

steps = st.one_of(
    st.builds(Step, st.sampled_from(RING), st.sampled_from(DEGREES), st.integers(1, 4)),
    st.sampled_from(sorted(SCALAR)).map(Step),
)
works = st.lists(st.tuples(steps, st.integers(0, 1000)), max_size=6).map(
    lambda parts: sum((Work.of(s.operation, n, degree=s.degree, primes=s.primes) for s, n in parts), Work())
)


@given(works, works, works, st.integers(0, 9))
def test_work_adds_and_repeats(a: Work, b: Work, c: Work, times: int) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Work() == a
    assert a * times == sum([a] * times, Work()) == times * a
    assert hash(a + b) == hash(b + a)
    assert (a + b).count(Operation.ADD) == a.count(Operation.ADD) + b.count(Operation.ADD)
    costs = flat()
    assert (a + b * times).total(costs) == pytest.approx(a.total(costs) + times * b.total(costs))


def test_work_of_nothing_is_nothing() -> None:
    assert Work.of(Operation.ADD, 0, degree=8192, primes=1) == Work()
    assert Work().total(flat()) == 0


def test_work_that_cannot_be() -> None:
    with pytest.raises(PlanRefused, match="expected N"):
        Work.of(Operation.ROTATE, 3)
    with pytest.raises(PlanRefused, match="by the element"):
        Work.of(Operation.GEMM, 3, degree=8192, primes=1)
    for count in (-1, math.nan, math.inf):
        with pytest.raises(InternalFault):
            Work.of(Operation.ADD, count, degree=8192, primes=1)


# Figures from outside.


def test_figures_travel() -> None:
    costs = flat()
    assert UnitCosts.from_json(costs.to_json()) == costs
    assert hash(UnitCosts.from_json(costs.to_json())) == hash(costs)


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    value = json.loads(flat().to_json())
    change(value)
    return json.dumps(value)


HOSTILE = [
    "",
    "[]",
    "1",
    "[" * 60_000,
    " " * MAX_JSON_CHARACTERS + flat().to_json(),
    changed(lambda v: v.update(version=2)),
    changed(lambda v: v.update(seconds=[])),
    changed(lambda v: v["seconds"].pop("rotate")),
    changed(lambda v: v["seconds"].update(rotate=[])),
    changed(lambda v: v["seconds"].update(decrypt=[[8192, 1, 1.0]])),
    changed(lambda v: v["seconds"].update(rotate=[[8192, 1, 1.0], [8192, 1, 2.0]])),
    changed(lambda v: v["seconds"].update(gemm=[[8192, 1, 1.0]])),
    *(
        changed(lambda v, row=row: v["seconds"].update(rotate=[row]))  # type: ignore[misc]
        for row in (
            *([8192, 1, s] for s in (0, -1.0, 3600, 1e-300, math.nan, math.inf, 10**4000, True, "1", None)),
            *([n, 1, 1.0] for n in (1, 0, 8191, 8192.0, 10**4000, True)),
            *([8192, k, 1.0] for k in (0, -1, 44, 1.0, True)),
            [8192, 1],
            [8192, 1, 1.0, 1.0],
            8192,
            {},
        )
    ),
    '{"version": 1, "seconds": {"rotate": [[8192, 1, ' + "9" * 5000 + "]]}}",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_figures_that_could_not_be_are_refused(text: str) -> None:
    with pytest.raises(PlanRefused, match="costs") as refused:
        UnitCosts.from_json(text)
    assert len(str(refused.value)) < 300


# Links.


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("100mbit,20ms", Link(1e8, 1e8, 0.02)),
        ("2gbit, 150us", Link(2e9, 2e9, 150e-6)),
        ("64kbit/1.5mbit,0.2s", Link(64e3, 1.5e6, 0.2)),
        (" 9600BIT,0ms", Link(9600, 9600, 0)),
        ("lan", Link(1e9, 1e9, 5e-4)),
        ("Mobile", Link(1e7, 4e7, 0.06)),
    ],
)
def test_links_as_people_write_them(text: str, link: Link) -> None:
    assert Link.parse(text) == link


@pytest.mark.parametrize(
    "text",
    [
        *("", "/,", "dsl", "100mbit", "100,20", "100mbit,20", "100mbyte,20ms", "20ms,100mbit", "1..5mbit,1ms"),
        *("0mbit,1ms", "5mbit/0bit,1ms", "-1mbit,1ms", "1e999bit,1ms", "1mbit,1e999s"),
        *("1mbit,1ms,1ms", "1mbit/1mbit/1mbit,1ms"),
    ],
)
def test_links_that_are_none(text: str) -> None:
    with pytest.raises(SettingsError, match=r"link: expected .* such as 100mbit,20ms"):
        Link.parse(text)


@given(st.floats(1, 1e12), st.floats(1, 1e12), st.floats(0, 1e3))
def test_a_link_prints_as_it_is_read(up: float, down: float, round_trip: float) -> None:
    again = Link.parse(str(Link(up, down, round_trip)))
    assert (again.up, again.down, again.round_trip) == pytest.approx((up, down, round_trip), rel=1e-9)


def test_presets_differ_as_their_names_say() -> None:
    times = [Link.parse(name).transfer(60_000, 30_000) for name in PRESETS]
    assert times == sorted(times)


def test_a_transfer_by_hand() -> None:
    """A megabyte at 8 Mbit/s is a second; two rounds of half a second make another."""
    link = Link(8e6, 16e6, 0.5)
    assert link.transfer(1_000_000, 1_000_000, rounds=2) == pytest.approx(1 + 0.5 + 1)


def test_an_estimate_says_where_the_time_goes() -> None:
    at = {"degree": 8192, "primes": 1}
    server, client = Work.of(Operation.MULTIPLY_PLAIN, 3, **at), Work.of(Operation.ENCRYPT, **at)
    found = estimate(server, client, 1000, 2000, Link(8e6, 8e6, 0.01), flat())
    assert (found.server, found.client, found.network) == pytest.approx((3e-3, 1e-3, 13e-3))
    assert found.total == pytest.approx(17e-3)
    slow_client = estimate(server, client, 1000, 2000, Link(8e6, 8e6, 0.01), flat(), client_costs=flat(1.0))
    assert (slow_client.server, slow_client.client) == pytest.approx((3e-3, 1.0))


# The cache.


class Machine:
    """Stands for the measuring: counts how often it is asked, and drifts as told."""

    def __init__(self) -> None:
        self.asked = 0
        self.drifts = [1.0] * 9

    def __call__(self) -> Calibration:
        self.asked += 1
        return Calibration(flat(self.asked * 1e-3), 0.5, self.drifts[self.asked - 1])


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    machine = Machine()
    monkeypatch.setattr(calibration, "measure", machine)
    monkeypatch.setattr(calibration, "_measured", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return machine


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As another process would find it."""
    monkeypatch.setattr(calibration, "_measured", {})


def test_figures_are_measured_once(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = unit_costs()
    assert unit_costs() is first
    forget(monkeypatch)
    assert unit_costs() == first
    assert machine.asked == 1
    (kept,) = (tmp_path / "cache" / "secure-infer").iterdir()
    assert kept == calibration.cache_path()
    assert json.loads(kept.read_text())["load_average"] == 0.5


def test_figures_are_measured_anew_when_asked(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    unit_costs()
    second = unit_costs(refresh=True)
    forget(monkeypatch)
    assert unit_costs() == second
    assert machine.asked == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"costs": 1}', b'{"costs": {}}', b"[" * 99_999])
def test_a_corrupt_cache_is_replaced(machine: Machine, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    path = calibration.cache_path()
    assert path is not None
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    found = unit_costs()
    forget(monkeypatch)
    assert unit_costs() == found
    assert machine.asked == 1


def test_a_cache_that_cannot_be_written_is_no_error(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the directory should be")
    assert unit_costs() is unit_costs()
    assert machine.asked == 1


def test_a_user_without_a_home_is_no_error(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    assert calibration.cache_path() is None
    assert unit_costs() is unit_costs()


def test_a_relative_cache_directory_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the XDG base directory specification asks."""
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    path = calibration.cache_path()
    assert path is not None
    assert path.parent == tmp_path / ".cache" / "secure-infer"


def test_a_busy_moment_is_measured_again(machine: Machine) -> None:
    machine.drifts[:2] = [1.5, 1.05]
    assert unit_costs() == flat(2e-3)
    assert machine.asked == 2
    path = calibration.cache_path()
    assert path is not None
    assert path.exists()


def test_a_busy_machine_does_not_spoil_the_cache(machine: Machine) -> None:
    machine.drifts[:2] = [1.5, 1.6]
    assert unit_costs() == flat(1e-3)
    path = calibration.cache_path()
    assert path is not None
    assert not path.exists()


def test_a_real_calibration() -> None:
    found = measure(points=((2048, 1), (4096, 2)), rounds=2)
    assert found.drift >= 1
    assert {step.operation for step in found.costs.measured} == set(Operation)
    assert UnitCosts.from_json(found.costs.to_json()) == found.costs
