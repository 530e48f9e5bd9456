"""The hostile inputs themselves: what they are made of, what is taken for a fault, and a short seeded run at real servers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from google.rpc import code_pb2
from hypothesis import given
from hypothesis import strategies as st

from secure_infer.ckks.residues import unpack_residues
from secure_infer.errors import InternalFault, MalformedRequest, ResourceExhausted, SecureInferError
from secure_infer.v1 import inference_pb2, mpc_pb2
from secure_infer.wire import status as wire_status
from secure_infer_benchmarks.stress import (
    command,
    hostile,
    hostile_ckks,
    hostile_inputs,
    hostile_parsers,
    hostile_raw,
    wireformat,
)
from secure_infer_benchmarks.stress import mutations as m
from secure_infer_benchmarks.stress.hostile_checks import answered, forms, refused, searched
from secure_infer_benchmarks.stress.hostile_corpus import Corpus
from secure_infer_benchmarks.stress.hostile_inputs import PARSED, SURFACES, Input, surface_of
from secure_infer_benchmarks.stress.hostile_send import Sender
from shared import linear_head

CANARY = b"canary-abcdefghijklmnop"
INPUTS = 1000


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """As a run has it, from messages made here."""
    rng = np.random.default_rng(0)
    query = inference_pb2.InferRequest(model="small", model_digest=bytes(32), plan_digest=b"p" * 32, request_id=b"1")
    query.queries.add(ciphertexts=[rng.bytes(500)])
    share = mpc_pb2.InferShareRequest(request_id=hostile_ckks.REQUEST_ID, model="small", rows=1, share=rng.bytes(64))
    messages = [query.SerializeToString(), share.SerializeToString()]
    key = hostile_ckks.Key("small", b"p" * 32, rng.bytes(1000))
    names = [name for name, (_, make) in SURFACES.items() if make]
    methods = {path for name in names for path in [name]} | set(METHODS)
    recipes = [b'{"needs": [{"kind": "square", "size": 4}], "program": "' + b"ab" * 32 + b'", "rows": 1}']
    start = b'{"bundle": "", "model": "small", "opens": false, "request": "' + b"00" * 16 + b'", "rows": 1}'
    material = m.Material([bytes(32)], [rng.bytes(300), b""], messages, CANARY)
    return Corpus({name: [[messages[0]]] for name in methods}, [key], recipes, [start], material)


METHODS = (
    *("ModelService/ListModels", "ModelService/GetModel", "InferenceService/Infer", "InferenceService/InferBatch"),
    *("InferenceService/EvaluatePlaintext", "KeyService/UploadKeys", "KeyService/GetUpload", "KeyService/ListKeys"),
    *("KeyService/DeleteKeys", "PartyService/InferShare", "DealerService/Deal", "AdminService/ReloadModels"),
    *(f"{hostile_inputs.OPEN}ModelInfer", hostile_inputs.REFLECTION),
)


# What is sent.


def test_a_thousand_in_a_row_have_every_surface_and_most_go_through_sockets() -> None:
    assert sum(share for share, _ in SURFACES.values()) == 1000
    found = [surface_of(3, index) for index in range(5000, 6000)]
    assert {name: found.count(name) for name in SURFACES} == {name: share for name, (share, _) in SURFACES.items()}
    assert hostile_inputs.ON_SOCKETS >= 0.5


def test_an_input_is_a_function_of_seed_and_index(corpus: Corpus) -> None:
    for index in range(300):
        assert hostile_inputs.build(corpus, 1, index) == hostile_inputs.build(corpus, 1, index)
    different = [hostile_inputs.build(corpus, seed, 11).messages for seed in range(20)]
    assert len({repr(messages) for messages in different}) > 10


def test_a_message_is_taken_apart_and_put_together() -> None:
    message = inference_pb2.InferRequest(
        model="a", model_digest=bytes(32), queries=[inference_pb2.Query(ciphertexts=[b"x"])]
    )
    data = message.SerializeToString()
    fields = wireformat.parse(data)
    assert fields is not None
    assert [field.number for field in fields] == [1, 2, 6]
    assert b"".join(field.encode() for field in fields) == data
    assert wireformat.parse(b"\x0a\x03ab") is None


@given(st.integers(0, 10**6), st.binary(max_size=200))
def test_mutations_end_and_are_bounded(seed: int, data: bytes) -> None:
    material = m.Material([bytes(32)], [b"blob"], [data], CANARY)
    assert len(m.mutated(Random(seed), data, material)) <= m.MOST_BYTES
    assert m.mutated(Random(seed), data, material) == m.mutated(Random(seed), data, material)


def test_uniform_residues_pass_for_a_ciphertext() -> None:
    primes = (1099511590913, 1152921504606830593)
    data = hostile_ckks.half(np.random.default_rng(0), 2048, primes)
    assert unpack_residues(data[:-64], 2048, primes, "x").shape == (2, 2048)


def test_frames_of_http2_are_laid_out_as_they_should_be() -> None:
    assert hostile_raw.frame(4, 1, 0, b"") == bytes.fromhex("000000040100000000")
    assert hostile_raw.frame(0, 0, 3, b"abc") == b"\0\0\x03\0\0\0\0\0\x03abc"


# What is taken for a fault.


def refusal(error: SecureInferError) -> list[tuple[str, bytes]]:
    return [("grpc-status-details-bin", wire_status.to_status(error).SerializeToString())]


SENT = Input("Infer", "ckks", "/x/Infer", [b"patient 4711 has pneumonia"])


def problem(code: str, error: SecureInferError, made: Input = SENT) -> str:
    return refused(made, code, error.message, refusal(error), CANARY)[1]


def test_an_error_of_the_catalogue_is_fine_and_any_other_is_not() -> None:
    assert problem("INVALID_ARGUMENT", MalformedRequest("ciphertext: expected 3 bytes, got 4")) == ""
    assert "unexpected fault" in problem("INTERNAL", InternalFault("the server failed under id 1"))
    assert "came as" in problem("INTERNAL", MalformedRequest("no"))
    for code in ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "DEADLINE_EXCEEDED"):
        assert "without a reason" in refused(SENT, code, "Exception deserializing request!", [], CANARY)[1]
    assert refused(SENT, "UNIMPLEMENTED", "Method not found!", [], CANARY)[1] == ""
    assert code_pb2.Code.Value("INTERNAL")


@pytest.mark.parametrize(
    "text",
    [
        f"cannot read {CANARY.decode()}",
        f"cannot read {CANARY.hex()}",
        'File "/srv/x.py", line 3',
        "Traceback (most recent call last)",
        "TypeError('x')",
        "x" * 2000,
    ],
)
def test_what_a_refusal_must_not_hold(text: str) -> None:
    assert problem("INVALID_ARGUMENT", MalformedRequest(text))


def test_a_refusal_says_names_again_and_nothing_else() -> None:
    assert problem("INVALID_ARGUMENT", MalformedRequest(f"unknown model {CANARY.decode()!r}")) == ""
    assert "bytes of the request" in problem("INVALID_ARGUMENT", MalformedRequest("patient 4711 has pneumonia......"))


def test_a_refusal_that_begins_like_a_tensors_name_is_fine() -> None:
    tensor = b"\x0b" + b"ciphertexts" + b":\x03abc"
    error = MalformedRequest("ciphertexts: expected datatype UINT8, got FP32  ")
    assert len(error.message) % 16 == 0  # else it is not looked at
    assert problem("INVALID_ARGUMENT", error, replace(SENT, messages=[tensor])) == ""


def test_a_refusal_that_comes_with_the_callers_end_is_fine_and_only_then() -> None:
    full = ResourceExhausted("4 uploads are under way; ask again shortly", again="shortly")
    assert problem("DEADLINE_EXCEEDED", full, replace(SENT, seconds=0.05)) == ""
    assert "came as" in problem("DEADLINE_EXCEEDED", full)


def test_an_administrative_call_that_is_answered_is_found() -> None:
    made = Input("AdminService", "ckks", "/secure_infer.v1.AdminService/ReloadModels", [b""])
    assert "administrative" in answered(made, b"")


class Slow(Sender):
    """Answers some inputs within `needed` seconds, others never."""

    def __init__(self, needed: float) -> None:
        self.needed, self.times = needed, list[float]()

    async def _sent(self, made: Input) -> tuple[str, str]:
        self.times.append(made.seconds)
        return ("ok", "") if made.seconds >= self.needed else ("DEADLINE_EXCEEDED", "without a reason")


def test_a_busy_machine_is_told_from_an_input_that_hangs() -> None:
    for needed, found, times in (
        (20.0, ("ok", ""), [20.0]),
        (30.0, ("ok, late", ""), [20.0, 40.0]),
        (90.0, ("DEADLINE_EXCEEDED", "without a reason"), [20.0, 40.0]),
    ):
        sender = Slow(needed)
        assert asyncio.run(sender.send(SENT)) == found
        assert sender.times == times


def test_a_crossed_or_wrong_answer_is_found() -> None:
    asked = inference_pb2.InferRequest(request_id=b"1", model_digest=b"d")
    made = Input("Infer", "ckks", "/x/Infer", [asked.SerializeToString()])
    right = inference_pb2.InferResponse(request_id=b"1", model_digest=b"d")
    assert answered(made, right.SerializeToString()) == ""
    assert "crossed" in answered(made, inference_pb2.InferResponse(request_id=b"2").SerializeToString())
    rows = np.full((1, 8), 0.1)
    plain = inference_pb2.EvaluatePlaintextRequest(model="small", rows=rows.tobytes()).SerializeToString()
    wrong = inference_pb2.EvaluatePlaintextResponse(logits=linear_head(8, 3, seed=9).evaluate(rows).tobytes())
    assert "wrong" in answered(Input("", "open", "/x/EvaluatePlaintext", [plain]), wrong.SerializeToString())


@pytest.mark.parametrize("form", forms(CANARY))
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_a_canary_in_a_record_is_found_in_every_form(tmp_path: Path, form: bytes, shift: int) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "keys").mkdir()
    (tmp_path / "audit" / "audit-1.jsonl").write_bytes(b"x" * shift + form + b"y")
    (tmp_path / "keys" / "blob").write_bytes(CANARY)
    problems = searched(tmp_path, ["keys"], CANARY).problems
    assert problems == ["audit-1.jsonl holds the canary"]


def test_faults_in_logs_are_found(tmp_path: Path) -> None:
    (tmp_path / "ckks.log").write_text('{"message": "fault 0123456789abcdef in Infer"}\n{"message": "fine"}\n')
    assert len(searched(tmp_path, [], CANARY).problems) == 1


# Runs.


def test_parsers_by_themselves(corpus: Corpus) -> None:
    for name, parser in hostile_parsers.PARSERS.items():
        if name == "programs":  # takes programs of a model, which the short run below has
            continue
        for index in range(100):
            hostile_parsers.parse(name, parser.make(Random(f"{name} {index}"), corpus))


def test_a_short_run_at_real_servers(tmp_path: Path) -> None:
    report = hostile.attack(range(INPUTS), 11, tmp_path)
    assert report.sound, hostile.hostile_report.text(report)
    assert report.inputs == INPUTS
    assert set(report.surfaces) == set(SURFACES)
    assert report.on_sockets == sum(sum(c.values()) for n, c in report.surfaces.items() if not n.startswith(PARSED))
    assert not list(tmp_path.iterdir())
    assert all(tally["records"] for tally in report.honest.values())


def test_the_command_has_usage_and_refuses_unknown_suites(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["--help"]) == 0
    assert command.run(["nothing"]) == 2
    assert "hostile" in capsys.readouterr().out
