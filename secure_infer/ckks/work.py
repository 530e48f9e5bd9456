"""The work of single queries, counted: what a plan asks of the server and of the client. See `costs` for what it takes."""

from __future__ import annotations

from secure_infer.ckks.batch import work as batch_work
from secure_infer.ckks.batch.plan import BatchPlan
from secure_infer.ckks.coefficient import CoefficientPlan
from secure_infer.ckks.costs import Operation, Work, dropping
from secure_infer.ckks.plan import Plan, Privacy, QueryPlan
from secure_infer.ckks.slots.program import Layer, Program


def of_client(plan: Plan) -> Work:
    """Packing and encrypting a row, reading its answers. Masks, zero encryptions, are made between queries.

    Of a batch plan: of a batch, masks included.
    """
    if isinstance(plan, BatchPlan):
        return batch_work.of_client(plan)
    degree, primes = plan.parameters.degree, len(plan.parameters.data_primes)
    # A polynomial's transform takes what an inverse one takes, prime by prime.
    added = _at(Operation.LOAD, degree, primes) + primes * _at(Operation.FINISH, degree, 1)
    packed = _at(Operation.ADD, degree, primes) + Work.of(Operation.PACK, primes * degree)
    limbs = 1 + (plan.answer_width > 30)
    read = Work.of(Operation.GEMM, limbs * plan.outputs * degree)
    return plan.ciphertexts * (added + packed) + read + Work.of(Operation.UNPACK, plan.products * degree)


def between_queries(plan: QueryPlan) -> tuple[Work, Work]:
    """(client's, server's) work that is done ahead of a query, and counts where queries follow one another: masks, blinds."""
    degree, primes = plan.parameters.degree, len(plan.parameters.data_primes)
    masks = plan.ciphertexts * _at(Operation.ENCRYPT, degree, primes)
    if plan.privacy is Privacy.INPUT_PRIVATE:
        return masks, Work()
    return masks, plan.products * _at(Operation.BLIND, degree, plan.blind_level)


def of_coefficient_server(plan: CoefficientPlan) -> Work:
    """One product with every ciphertext for each group of rows."""
    degree, primes = plan.parameters.degree, len(plan.parameters.data_primes)
    terms = plan.ciphertexts * plan.products
    total = loading(plan) + terms * _at(Operation.MULTIPLY_PLAIN, degree, primes)
    total += terms * _at(Operation.ADD, degree, primes)
    total += plan.products * dropping(degree, primes, 1)
    return total + plan.products * (_at(Operation.FINISH, degree, 1) + Work.of(Operation.PACK, degree))


def of_slots_server(program: Program) -> Work:
    """Matrices, folds and activations of every layer; the last activation once a product."""
    plan = program.plan
    degree = plan.parameters.degree
    total = loading(plan)
    for index, layer in enumerate(program.layers):
        last = index + 1 == len(program.layers)
        products = plan.products if last else 1
        level_out = 1 if last else layer.level_out
        total += _affine(layer, degree, conjugate=index == 0) + _powers(layer, degree)
        total += products * (_activation(layer, degree) + dropping(degree, _level(layer), level_out, 1.5))
        total += products * _at(Operation.RELINEARISE, degree, level_out)
    blinded = _at(Operation.ADD, degree, 1) + _at(Operation.FINISH, degree, 1) + Work.of(Operation.PACK, degree)
    return total + plan.products * blinded


def loading(plan: Plan) -> Work:
    """Ciphertexts of a query from their bytes."""
    degree, primes = plan.parameters.degree, len(plan.parameters.data_primes)
    return plan.ciphertexts * (_at(Operation.EXPAND, degree, primes) + Work.of(Operation.UNPACK, primes * degree))


def _at(operation: Operation, degree: int, primes: int) -> Work:
    return Work.of(operation, degree=degree, primes=primes)


def _level(layer: Layer) -> int:
    """Where the activation is multiplied out."""
    return layer.level_square if layer.degree > 2 else layer.level


def _affine(layer: Layer, degree: int, *, conjugate: bool) -> Work:
    top, low = layer.level_in, layer.level
    rotations = layer.inputs * (layer.babies - 1) + layer.giants - 1
    terms = layer.inputs * layer.shifts
    total = rotations * _at(Operation.ROTATE, degree, top)
    total += terms * (_at(Operation.MULTIPLY_PLAIN, degree, top) + _at(Operation.ADD, degree, top))
    early = min(layer.early, len(layer.folds))
    late = len(layer.folds) - early + conjugate
    for level, folds in ((top, early), (low, late)):
        total += folds * (_at(Operation.ROTATE, degree, level) + _at(Operation.ADD, degree, level))
    return total + dropping(degree, top, low)


def _powers(layer: Layer, degree: int) -> Work:
    if layer.degree == 2:
        return Work()
    square, level = _at(Operation.SQUARE, degree, layer.level), layer.level_square
    return (
        square
        + dropping(degree, layer.level, level, 1.5)
        + _at(Operation.RELINEARISE, degree, level)
        + _at(Operation.LOAD, degree, level)
    )


def _activation(layer: Layer, degree: int) -> Work:
    level = _level(layer)
    plain = {2: 1, 3: 2, 4: 3}[layer.degree]
    return (
        plain * _at(Operation.MULTIPLY_PLAIN, degree, level)
        + plain * _at(Operation.ADD, degree, level)
        + _at(Operation.MULTIPLY, degree, level)
    )
