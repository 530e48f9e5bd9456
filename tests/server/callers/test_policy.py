"""Rules: nothing without one, and patterns that mean what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_infer.errors import PermissionDenied, SecondFactorNeeded, SettingsError
from secure_infer_server.callers.caller import Caller
from secure_infer_server.callers.patterns import matches
from secure_infer_server.callers.permissions import Permissions, PermissionSettings
from secure_infer_server.callers.policy import Policy, Rule, canonical, read_policy

METHODS = (
    "ModelService/ListModels",
    "KeyService/UploadKeys",
    "InferenceService/Infer",
    "InferenceService/InferBatch",
    "KeyService/DeleteKeys:others",
    "AuditService/Export",
)

POLICY = """
deny = ["cn:ward-13", "sha256:dead*"]

[roles]
client = ["cn:ward-*", "jwt:https://login.example:*"]
operator = ["cn:it-anna"]
auditor = ["cn:revision"]

[[allow]]
roles = ["client"]
methods = ["ModelService/*", "KeyService/*"]

[[allow]]
roles = ["client"]
methods = ["/secure_infer.v1.InferenceService/Infer"]
models = ["icd-*"]

[[allow]]
roles = ["operator"]
methods = ["KeyService/*"]

[[allow]]
roles = ["party:1"]
methods = ["DealerService/Deal"]

[[allow]]
identities = ["cn:guest"]
methods = ["*"]
"""


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return read_policy(written(tmp_path, POLICY))


def written(directory: Path, text: str) -> Path:
    path = directory / "policy.toml"
    path.write_text(text)
    return path


def client(identity: str, fingerprint: str = "") -> Caller:
    return Caller(identity, "client", fingerprint=fingerprint)


def test_rules(policy: Policy) -> None:
    ward = client("cn:ward-7")
    assert policy.roles_of(ward) == {"client"}
    assert policy.allows(ward, "ModelService/ListModels")
    assert policy.allows(ward, "/secure_infer.v1.KeyService/UploadKeys", "icd-10")
    assert policy.allows(ward, "InferenceService/Infer", "icd-10")
    assert not policy.allows(ward, "InferenceService/Infer", "stroke")
    assert not policy.allows(ward, "InferenceService/Infer")  # a rule for models is for calls that name one
    assert not policy.allows(ward, "InferenceService/InferBatch", "icd-10")
    assert policy.allows(client("jwt:https://login.example:anna"), "ModelService/GetModel")
    for stranger in ("cn:Ward-7", "xcn:ward-7", "anonymous", "jwt:https://elsewhere.example:anna", ""):
        assert not any(policy.allows(client(stranger), method, "icd-10") for method in METHODS)


def test_before_a_request_is_read(policy: Policy, tmp_path: Path) -> None:
    ward = client("cn:ward-7")
    assert policy.allows_some(ward, "/secure_infer.v1.InferenceService/Infer")
    assert not policy.allows_some(ward, "InferenceService/InferBatch")
    assert not policy.allows_some(ward, "KeyService/DeleteKeys:others")
    assert not policy.allows_some(client("cn:ward-13"), "InferenceService/Infer")
    permissions = Permissions(PermissionSettings(written(tmp_path, POLICY)))
    permissions.require_some(ward, "InferenceService/Infer")
    permissions.require_some(client("cn:it-anna"), "KeyService/DeleteKeys:others")  # the code is asked for later
    with pytest.raises(PermissionDenied, match="InferBatch"):
        permissions.require_some(ward, "InferenceService/InferBatch")


def test_denied_whatever_the_rules(policy: Policy) -> None:
    for lost in (client("cn:ward-13"), client("cn:ward-7", "sha256:deadbeef"), Caller("cn:ward-7", None)):
        assert not policy.roles_of(lost)
        assert not any(policy.allows(lost, method, "icd-10") for method in METHODS)
    assert policy.allows(client("cn:ward-7", "sha256:beef"), "KeyService/UploadKeys")


REST = "0b" * 29  # of a fingerprint, after its first three bytes


@pytest.mark.parametrize(
    "written_as",
    [f"sha256:7F:E7:0A:{':'.join(['0B'] * 29)}", f"SHA256:7fe70a{REST}", f"sha256:7fe70a{REST}", "sha256:7F:E7:*a0b*"],
)
def test_a_fingerprint_is_denied_as_other_tools_print_it(tmp_path: Path, written_as: str) -> None:
    denying = read_policy(written(tmp_path, POLICY.replace("sha256:dead*", written_as)))
    assert denying.roles_of(client("cn:ward-7", f"sha256:7fe70b{REST}"))
    assert not denying.roles_of(client("cn:ward-7", f"sha256:7fe70a{REST}"))


def test_administrative_methods_are_for_operators_and_auditors(policy: Policy) -> None:
    others = "KeyService/DeleteKeys:others"
    assert policy.is_administrative(others)
    assert not policy.is_administrative("KeyService/DeleteKeys")
    assert policy.allows(client("cn:it-anna"), others)
    assert not policy.allows(client("cn:it-anna"), "AuditService/Export")
    for identity in ("cn:ward-7", "cn:guest", "cn:revision"):  # whatever their rules would match
        assert not policy.allows(client(identity), others)
    assert policy.allows(client("cn:guest"), "KeyService/DeleteKeys")


def test_parties_are_no_clients(policy: Policy) -> None:
    party = Caller("cn:ward-7", "party:1")
    assert policy.roles_of(party) == {"party:1"}
    assert policy.allows(party, "DealerService/Deal")
    assert not any(policy.allows(party, method, "icd-10") for method in METHODS)
    assert not policy.allows(Caller("cn:ward-7", "party:0"), "DealerService/Deal")


def test_health_is_for_everybody_and_the_empty_policy_for_nobody() -> None:
    assert Policy().allows(client("anonymous"), "/grpc.health.v1.Health/Check")
    assert not any(Policy().allows(client("anonymous"), method) for method in METHODS)


identities = st.text(st.sampled_from("ab:*-"), max_size=8)


@given(identities, st.sampled_from(METHODS), st.lists(identities.filter(lambda text: "*" not in text), max_size=4))
def test_no_rule_no_call(identity: str, method: str, others: list[str]) -> None:
    rules = tuple(Rule((), (other,), ("*",)) for other in others)
    allowed = Policy(rules).allows(client(identity), method)
    assert allowed == (bool(identity) and identity in others and not Policy().is_administrative(method))


@given(st.text(st.sampled_from("ab*"), max_size=12), st.text(st.sampled_from("ab*\n"), max_size=24))
def test_patterns_as_a_regular_expression(pattern: str, text: str) -> None:
    expression = ".*".join(map(re.escape, pattern.split("*")))
    assert matches(pattern, text) == bool(re.fullmatch(expression, text, re.DOTALL))


@given(st.text(), st.text(), st.text())
def test_patterns_over_any_text(before: str, between: str, after: str) -> None:
    assert matches("*", before)
    start, end = before.replace("*", ""), after.replace("*", "")
    assert matches(f"{start}*{end}", start + between + end)
    assert matches(start, before) == (start == before)


def test_patterns_do_not_backtrack() -> None:
    assert not matches("*a" * 200 + "b", "a" * 100_000)


def test_canonical() -> None:
    assert canonical("/secure_infer.v1.KeyService/UploadKeys") == canonical("KeyService/UploadKeys")
    assert canonical("/grpc.health.v1.Health/Check") == "grpc.health.v1.Health/Check"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("allow = 3", "expected tables"),
        ("[[allow]]\nroles = ['client']", "expected methods"),
        ("[[allow]]\nmethods = ['*']", "roles or identities"),
        ("[[allow]]\nrole = ['client']\nmethods = ['*']", "got role"),
        ("[[allow]]\nroles = ['admin']\nmethods = ['*']", "got admin"),
        ("[[allow]]\nroles = 'client'\nmethods = ['*']", "list of strings"),
        ("[[allow]]\nroles = ['client']\nmethods = ['']", "not empty"),
        ("[roles]\nparty = ['*']", "got party"),
        ("roles = 1", "table"),
        ("denied = ['x']", "got denied"),
        ("deny = ['cn: ward-7']", "no blanks around a name, got 'cn: ward-7'"),
        ("deny = ['cn:ward-7 ']", "no blanks around a name"),
        ("deny = ['sha256:768ade']", "64 digits of a fingerprint, or . after"),
        ("deny = ['ward-7']", "begin with cn:, jwt:, sha256: or .*'ward-7'"),
        ("deny = ['CN:ward-7']", "got 'CN:ward-7'"),
        ("[roles]\nclient = ['ward-*']", "got 'ward-\\*'"),
        ("[[allow]]\nidentities = ['guest']\nmethods = ['*']", "got 'guest'"),
        ("[administrative]\nmethod = ['x']", "got method"),
        ("[", "not TOML"),
        ("\udc80", "not TOML"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError, match=message):
        read_policy(path)


def test_permissions_follow_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, POLICY)
    permissions = Permissions(PermissionSettings(path))
    ward = client("cn:ward-7")
    permissions.require(ward, "KeyService/UploadKeys")
    with pytest.raises(PermissionDenied, match=r"InferenceService/Infer: not allowed to cn:ward-7"):
        permissions.require(ward, "InferenceService/Infer", "stroke")
    with pytest.raises(SecondFactorNeeded, match="none set up"):
        permissions.require(client("cn:it-anna"), "KeyService/DeleteKeys:others")
    written(tmp_path, POLICY + "\nnonsense")
    assert not any(watched.refresh() for watched in permissions.watched)
    assert "stays in force" in caplog.text
    permissions.require(ward, "KeyService/UploadKeys")
    written(tmp_path, "deny = ['*']" + POLICY.replace("deny", "#"))
    assert all(watched.refresh() for watched in permissions.watched)
    with pytest.raises(PermissionDenied):
        permissions.require(ward, "KeyService/UploadKeys")


def test_a_method_made_administrative_by_the_file(tmp_path: Path) -> None:
    more = POLICY + "\n[administrative]\nmethods = ['ModelService/ListModels']\n"
    permissions = Permissions(PermissionSettings(written(tmp_path, more)))
    with pytest.raises(PermissionDenied):
        permissions.require(client("cn:ward-7"), "ModelService/ListModels")
    permissions.require(client("cn:ward-7"), "ModelService/GetModel")
