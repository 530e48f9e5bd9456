"""Tensors and versions as queries and digests, and answers as tensors.

model_version                     MODEL-PLAN: SHA-256 of the model, then of the plan, in hex
"ciphertexts"  UINT8 (q, c, b)    q queries of c ciphertexts of b bytes, as `Query.ciphertexts`, one after another
"products"     UINT8 (q, p, w)    q answers of p products of w bytes, as `Answer.products`, one after another
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from secure_infer.ckks.sealio import SEED_BYTES
from secure_infer.errors import MalformedRequest
from secure_infer.v1 import inference_pb2
from secure_infer_server.open_inference.v2 import inference_pb2 as open_pb2

INPUT, OUTPUT, DATATYPE = "ciphertexts", "products", "UINT8"
KEY_DIGEST = "key_digest"
_DATATYPES = frozenset(
    ["BOOL", "BYTES", "BF16", *(f"{kind}{bits}" for kind in ("UINT", "INT", "FP") for bits in (8, 16, 32, 64))]
)
_DIGEST_BYTES = 32
_SHOWN = 64  # characters of a client's own words in an error


def version_of(model_digest: bytes, plan_digest: bytes) -> str:
    return f"{model_digest.hex()}-{plan_digest.hex()}"


def digests_of(version: str) -> tuple[bytes, bytes]:
    """Of the model and the plan; raises MalformedRequest."""
    model, _, plan = version.partition("-")
    try:
        found = _digest(model), _digest(plan)
    except ValueError:
        raise MalformedRequest(
            "model version: expected MODEL-PLAN, two SHA-256 in hex, as ModelMetadata lists them (ciphertexts are made for "
            f"one plan of one model), got {version[:_SHOWN]!r}"
        ) from None
    return found


def _digest(text: str) -> bytes:
    found = bytes.fromhex(text)
    if len(found) != _DIGEST_BYTES or found.hex() != text:
        raise ValueError
    return found


def native(request: open_pb2.ModelInferRequest) -> inference_pb2.InferRequest:
    """The same request, as our own service takes it; raises MalformedRequest for anything but the one tensor."""
    model_digest, plan_digest = digests_of(request.model_version)
    return inference_pb2.InferRequest(
        model=request.model_name,
        model_digest=model_digest,
        plan_digest=plan_digest,
        key_digest=_key_digest(request),
        request_id=request.id.encode(),
        queries=[inference_pb2.Query(ciphertexts=each) for each in _queries(request)],
    )


def _key_digest(request: open_pb2.ModelInferRequest) -> bytes:
    """Empty where none is given: plans without keys take none."""
    if KEY_DIGEST not in request.parameters:
        return b""
    text = request.parameters[KEY_DIGEST].string_param
    try:
        return _digest(text)
    except ValueError:
        raise MalformedRequest(
            f"parameter {KEY_DIGEST}: expected a SHA-256 in hex, as a string, got {text[:_SHOWN]!r}"
        ) from None


def _queries(request: open_pb2.ModelInferRequest) -> list[list[bytes]]:
    unwanted = [output.name for output in request.outputs if output.name != OUTPUT]
    if unwanted:
        raise MalformedRequest(f"outputs: expected {OUTPUT!r} or none, got {unwanted[0][:_SHOWN]!r}")
    names = [tensor.name for tensor in request.inputs]
    if names != [INPUT]:
        got = ", ".join(repr(name[:_SHOWN]) for name in names[:4]) or "none"
        raise MalformedRequest(f"inputs: expected one, {INPUT!r}, got {got}")
    tensor = request.inputs[0]
    if tensor.datatype != DATATYPE:
        got = tensor.datatype if tensor.datatype in _DATATYPES else "none of the protocol's"
        raise MalformedRequest(f"{INPUT}: expected datatype {DATATYPE}, got {got}")
    if tensor.HasField("contents") or len(request.raw_input_contents) != 1:
        raise MalformedRequest(
            f"{INPUT}: expected its bytes in raw_input_contents, once, got {len(request.raw_input_contents)} entries there"
            + (" and typed contents" if tensor.HasField("contents") else "")
        )
    return _split(request.raw_input_contents[0], tensor.shape)


def _split(data: bytes, shape: Sequence[int]) -> list[list[bytes]]:
    # No ciphertext is shorter than the seed it ends with: a message does not become millions of pieces.
    if len(shape) != 3 or min(shape) < 1 or shape[2] <= SEED_BYTES:
        raise MalformedRequest(
            f"{INPUT}: expected shape (queries, ciphertexts a query, bytes a ciphertext), got {tuple(shape)[:8]}"
        )
    if len(data) != prod(shape):
        raise MalformedRequest(f"{INPUT}: expected {prod(shape)} bytes for shape {tuple(shape)}, got {len(data)}")
    _, each, size = shape
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return [pieces[start : start + each] for start in range(0, len(pieces), each)]


def response_of(
    request: open_pb2.ModelInferRequest, answered: inference_pb2.InferResponse
) -> open_pb2.ModelInferResponse:
    """Evaluated answers, all of one plan and hence of one size."""
    found = [list(answer.products) for answer in answered.answers.answers]
    products = [product for answer in found for product in answer]
    shape = len(found), len(found[0]), len(products[0])
    times = {
        field.name: open_pb2.InferParameter(int64_param=getattr(answered.answers.times, field.name))
        for field in inference_pb2.ServerTimes.DESCRIPTOR.fields
    }
    return open_pb2.ModelInferResponse(
        model_name=request.model_name,
        model_version=request.model_version,
        id=request.id,
        parameters=times,
        outputs=[open_pb2.ModelInferResponse.InferOutputTensor(name=OUTPUT, datatype=DATATYPE, shape=shape)],
        raw_output_contents=[b"".join(products)],
    )


def described(name: str, shape: Iterable[int]) -> open_pb2.ModelMetadataResponse.TensorMetadata:
    return open_pb2.ModelMetadataResponse.TensorMetadata(name=name, datatype=DATATYPE, shape=shape)
