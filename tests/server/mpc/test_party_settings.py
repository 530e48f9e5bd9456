"""What a party refuses before it serves, in words that say what to change."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from secure_infer.errors import InvalidHead, SettingsError
from secure_infer.heads import ReLU
from secure_infer.mpc import sharefile
from secure_infer.mpc.program import Answers, Comparisons
from secure_infer_server.commands import certs, dealer, inspect, party, share_model
from secure_infer_server.mpc import models
from secure_infer_server.mpc.models import PartyModels, PartyPolicy
from secure_infer_server.observe.endpoint import MetricsServer
from shared import hidden_head, linear_head

LABEL = PartyPolicy(answers=Answers.LABEL)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two parties' models: "plain" with weights at both, "mine" with shares."""
    found = [tmp_path / f"party-{number}" for number in (0, 1)]
    for folder in found:
        folder.mkdir()
        linear_head(6, 3).save(folder / "plain.head")
    sharefile.share_model(hidden_head((6, 4, 3), ReLU()), found, "mine")
    return found


def test_a_share_file_keeps_its_owners_decisions(folders: list[Path]) -> None:
    again = "make new halves with: secure-infer share-model mine.head"
    expected = f"--answers: mine.share was made with answers logits, got label; {again} --answers label --out DIR"
    for policy, policies in ((LABEL, {}), (PartyPolicy(), {"mine": LABEL})):
        with pytest.raises(SettingsError) as caught:
            PartyModels.load(folders[0], 0, policy, policies)
        assert caught.value.message == expected
    with pytest.raises(SettingsError, match=r"--comparisons: .* comparisons tables, got crypten"):
        PartyModels.load(folders[0], 0, PartyPolicy(), {"mine": PartyPolicy(comparisons=Comparisons.CRYPTEN)})
    with pytest.raises(SettingsError, match=r"--error: mine.share .* an error bound of 0.00\d+, got 1e-06"):
        PartyModels.load(folders[0], 0, PartyPolicy(), {"mine": PartyPolicy(error=1e-6)})
    same = PartyPolicy(Answers.LOGITS, Comparisons.TABLES, 1e-3)
    assert PartyModels.load(folders[0], 0, same).names() == ["mine", "plain"]
    found = PartyModels.load(folders[0], 0, LABEL, {"mine": PartyPolicy(answers=Answers.LOGITS)})
    assert found.get("plain").settings == {"weights": "replicated", "answers": "label", "comparisons": "tables"}
    assert found.get("mine").settings == {"weights": "shared", "answers": "logits", "comparisons": "tables"}


def test_a_policy_of_a_model_that_is_not_there(folders: list[Path]) -> None:
    with pytest.raises(SettingsError) as caught:
        PartyModels.load(folders[0], 0, PartyPolicy(), {"nope": LABEL})
    assert caught.value.message == f"--answers: 'nope' is not a model in {folders[0]}; there are: mine, plain"


def test_the_other_partys_half(folders: list[Path]) -> None:
    found = PartyModels.load(folders[0], 1, PartyPolicy())
    assert found.rejected == {
        "mine": "mine.share: this is party 0's half; party 1 needs party-1/mine.share of the same run"
    }


def test_reasons_are_grouped() -> None:
    found = models._by_reason({"a": "torch is not installed", "b": "b.head: cut short", "c": "torch is not installed"})
    assert found == "a, c: torch is not installed; b: b.head: cut short"


def test_certificates_of_another_role(tmp_path: Path) -> None:
    pki = certs.make(tmp_path, ["localhost"], "ward-7", 2)

    def files(name: str) -> list[str]:
        return [
            "--tls-cert",
            str(pki[f"{name}.pem"]),
            "--tls-key",
            str(pki[f"{name}.key"]),
            "--client-ca",
            str(pki["ca.pem"]),
        ]

    base = ["--id", "1", "--models", str(tmp_path), "--peer", "127.0.0.1:1", "--dealer", "127.0.0.1:2"]
    listen = ["--listen", "127.0.0.1:3"]
    expected = r"--tls-cert: expected a certificate with the role party:1, \S+party0.pem has party:0"
    with pytest.raises(SettingsError, match=expected):
        party.run([*base, *listen, *files("party0")])
    with pytest.raises(SettingsError, match=r"the role party:1, \S+server.pem has client"):
        party.run([*base, *listen, *files("server")])
    with pytest.raises(SettingsError, match=r"the role dealer, \S+client.pem has client"):
        dealer.run([*listen, *files("client")])


def test_ports(tmp_path: Path) -> None:
    base = ["--id", "0", "--models", str(tmp_path), "--dealer", "127.0.0.1:2", "--insecure"]
    with pytest.raises(SettingsError, match=r"--peer: 127.0.0.1:7 is the address of --listen"):
        party.run([*base, "--peer", "127.0.0.1:7", "--listen", "127.0.0.1:7"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SettingsError, match=rf"--metrics: cannot listen on {address}: the port is in use, or"):
            MetricsServer(address)


@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "1e6", "inf"])
def test_error_bounds(tmp_path: Path, wrong: str) -> None:
    base = ["--id", "0", "--models", str(tmp_path), "--dealer", "127.0.0.1:2", "--insecure", "--peer", "127.0.0.1:7"]
    expected = "--error: expected a bound above 0 and below 1000000, got"
    with pytest.raises(SettingsError, match=expected):
        party.run([*base, "--listen", "127.0.0.1:8", f"--error=m={wrong}"])
    with pytest.raises(SettingsError, match=expected):
        share_model.run(["x.head", "--out", str(tmp_path), f"--error={wrong}"])


def test_a_half_is_described_and_not_shared_again(folders: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    half = str(folders[1] / "mine.share")
    with pytest.raises(InvalidHead, match=r"mine.share is one half made by share-model; expected a .head"):
        share_model.run([half, "--out", str(folders[0])])
    assert inspect.run([half, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["half_of_party"], found["weights"], found["answers"]) == (1, "shared", "logits")
    assert inspect.run([half]) == 0
    assert "half of party         1" in capsys.readouterr().out
