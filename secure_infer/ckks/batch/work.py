"""The work of a batch, counted: what it asks of the server and of the client, as `ckks.work` does for single queries.

What has no unit cost of its own is counted as the operation nearest to it, as often as it takes as long (read on one
thread, N from 4096 to 8192): expanding a residue by AES as UNPACK, cutting off a limb as 0.4 REDUCE, adding a product of
limbs to the sums in memory as 1.4 GEMM, and squaring a hidden unit's conjugates, its recombination included, as 12 REDUCE
a residue.
"""

from __future__ import annotations

from collections.abc import Sequence

from secure_infer.ckks.batch.affine import AffineProgram
from secure_infer.ckks.batch.gemm import Integers, limb_bits
from secure_infer.ckks.batch.plan import SWITCHED, BatchPlan, Layout
from secure_infer.ckks.batch.quadratic import Form, QuadraticProgram
from secure_infer.ckks.costs import Operation, Work, dropping
from secure_infer.ckks.plan import Privacy

_SPLIT, _SUMMED, _SQUARED = 0.4, 1.4, 12.0


def of_client(plan: BatchPlan) -> Work:
    """Packing and encrypting every feature, reading every answer; the same however many records a batch holds."""
    degree, primes = plan.parameters.degree, len(plan.parameters.data_primes)
    residues = primes * degree
    feature = Work.of(Operation.ENCRYPT, degree=degree, primes=primes) + Work.of(Operation.PACK, residues)
    feature += Work.of(Operation.MULTIPLY_PLAIN, degree=degree, primes=primes) + Work.of(Operation.UNPACK, residues)
    if plan.layout is Layout.SLOTS:
        feature += Work.of(Operation.PACK, 4 * degree)  # the encoder's transform
    # Reading is a few transforms in complex numbers, an answer.
    return plan.features * feature + plan.outputs * Work.of(Operation.PACK, 24 * degree)


def of_server(program: AffineProgram | QuadraticProgram) -> Work:
    """Taking in all features, products, answers; a full batch and one with a single record take the same."""
    plan = program.plan
    primes, degree, level = plan.parameters.data_primes, plan.parameters.degree, plan.level
    total = Work.of(Operation.UNPACK, 2 * plan.features * len(primes) * degree)
    if isinstance(program, AffineProgram):
        limbs = _limbs(program.weights, primes)
        total += _sums(program.weights, plan.features, primes, degree)
        return total + Work.of(Operation.REDUCE, 2 * plan.outputs * limbs * degree) + plan.outputs * _answer(plan, 0)
    total += _form(program.form, plan.features, primes, degree)
    if program.deeper is not None:
        switched = SWITCHED * Work.of(Operation.RELINEARISE, degree=degree, primes=len(primes))
        total += program.form.outputs * (switched + dropping(degree, len(primes), level))
        total += _form(program.deeper, program.deeper.rows.shape[1], primes[:level], degree)
    return total + plan.outputs * _answer(plan, SWITCHED)


def _limbs(weights: Integers, primes: Sequence[int]) -> int:
    """Limbs of a residue modulo each of the primes, together."""
    return sum(-(-prime.bit_length() // limb_bits(weights, prime.bit_length())) for prime in primes)


def _sums(weights: Integers, count: int, primes: Sequence[int], degree: int) -> Work:
    """weights (rows, count) times `count` ciphertexts."""
    limbs = 2 * degree * _limbs(weights, primes)
    return Work.of(Operation.REDUCE, _SPLIT * count * limbs) + Work.of(
        Operation.GEMM, _SUMMED * len(weights) * count * limbs
    )


def _form(form: Form, count: int, primes: Sequence[int], degree: int) -> Work:
    units, residues = len(form.hidden), len(primes) * degree
    total = _sums(form.rows, count, primes, degree) + Work.of(Operation.REDUCE, _SQUARED * units * residues)
    if form.output is not None:
        # Nine products a pair of places, of two limbs.
        total += Work.of(Operation.GEMM, 9 * len(form.output) * units * residues)
    return total


def _answer(plan: BatchPlan, keys: int) -> Work:
    degree, level = plan.parameters.degree, plan.level
    total = dropping(degree, level, 1) + Work.of(Operation.FINISH, degree=degree, primes=1)
    total += Work.of(Operation.PACK, 2 * degree) + keys * Work.of(Operation.RELINEARISE, degree=degree, primes=level)
    if plan.privacy is not Privacy.INPUT_PRIVATE:
        total += Work.of(Operation.BLIND, degree=degree, primes=level)
    return total
