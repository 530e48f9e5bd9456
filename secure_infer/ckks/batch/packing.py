"""The client's half of the batch plan: records to polynomials, answers to logits. See `plan`.

Answers are read in integers, without SEAL: a server's bytes are never loaded into SEAL beside the secret key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.batch import gemm
from secure_infer.ckks.batch.plan import BatchPlan, Layout
from secure_infer.ckks.embedding import to_coefficients, to_slots
from secure_infer.ckks.residues import unpack
from secure_infer.errors import AnswerRefused, InvalidInput, MalformedRequest

_LIMB = 20


def _quarter(slots: int) -> NDArray[np.complex128]:
    """X^(N/2) in each slot: i and -i in turn, as 3^j mod 4 is 1 and 3. The second half of the records is its multiple."""
    return np.asarray(np.resize([1j, -1j], slots))


def pack_batch(plan: BatchPlan, rows: NDArray[np.float64]) -> Iterator[NDArray[np.int64]]:
    """Rows (B, d), already held to the contract, B <= `plan.records`, as one integer polynomial (N,) a feature.

    Places beyond the last row hold zeros.
    """
    if rows.ndim != 2 or rows.shape[1] != plan.features or not 1 <= len(rows) <= plan.records:
        raise InvalidInput(
            f"batch: expected 1 to {plan.records} rows of {plan.features} features, got shape {rows.shape}"
        )
    half, scale = plan.parameters.degree // 2, float(plan.input_scale)
    for feature in rows.T:
        values = np.zeros(plan.records)
        values[: len(rows)] = feature * scale
        if plan.layout is Layout.SLOTS:
            values = to_coefficients(values[:half] + _quarter(half) * values[half:])
        yield np.rint(values).astype(np.int64)


def negacyclic(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.int64]:
    """The product of integer polynomials (..., N) and (N,) modulo X^N + 1.

    By complex FFT on odd 2N-th roots of unity. Exact while the rounding error, about 2^-53 · log2(N) · |a|₂ · |b|₂, is far
    from a half: with limbs of 20 bits, ternary b and N = 2^15 it is below 2^-14.
    """
    degree = a.shape[-1]
    turn = np.exp(1j * np.pi * np.arange(degree) / degree)
    values = np.fft.fft(a * turn) * np.fft.fft(b * turn)
    return np.asarray(np.rint((np.fft.ifft(values) * np.conj(turn)).real), np.int64)


def _phase(plan: BatchPlan, secret: NDArray[np.float64], answer: bytes) -> NDArray[np.float64]:
    """c0 + c1·s (N,) modulo the answer modulus, centred, as a multiple of a logit's unit."""
    degree, modulus = plan.parameters.degree, plan.answer_modulus
    values = unpack(answer, 2 * degree, plan.answer_width, "answer")
    if int(values.max()) >= modulus:
        raise MalformedRequest("answer: holds values that are not below the modulus")
    total = values[:degree].astype(np.int64)
    for shift in range(0, plan.answer_width, _LIMB):
        limb = (values[degree:] >> np.uint64(shift)) & np.uint64((1 << _LIMB) - 1)
        part = gemm.centre(negacyclic(limb.astype(np.float64), secret), modulus)
        total += gemm.scale(part, 1 << shift, modulus)
    total %= modulus
    total[total > modulus // 2] -= modulus
    return np.asarray(total * (plan.first_prime / modulus / plan.unit), np.float64)


def read_batch(plan: BatchPlan, secret: NDArray[np.int8], answers: Sequence[bytes], count: int) -> NDArray[np.float64]:
    """Logits (count, K) of the batch's first `count` records; `secret` is the ternary secret polynomial (N,).

    Raises AnswerRefused when an answer is malformed, or any of the batch's logits, its empty places included, is outside
    the range an honest server can return. The caller must not retry: whether an answer was refused tells a hostile server
    about the secret key.
    """
    if len(answers) != plan.products:
        raise AnswerRefused(f"answer: expected {plan.products} products, got {len(answers)}")
    key = secret.astype(np.float64)
    logits = np.empty((plan.records, plan.outputs))
    try:
        for column, answer in zip(logits.T, answers, strict=True):
            phase = _phase(plan, key, answer)
            if plan.layout is Layout.SLOTS:
                slots = to_slots(phase)
                phase = np.concatenate([slots.real, (slots * np.conj(_quarter(len(slots)))).real])
            column[:] = phase
    except MalformedRequest as problem:
        raise AnswerRefused(problem.message) from None
    if not np.abs(logits).max() <= plan.answer_limit:  # so that NaN is refused too
        raise AnswerRefused(f"answer: a logit is outside the model's declared range of ±{plan.answer_range:g}")
    return logits[:count]
