"""A network as the integer polynomials of a program, and how far their rounding moves its outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secure_infer.ckks.embedding import Slots, to_coefficients, to_slots
from secure_infer.ckks.slots.influence import Influence
from secure_infer.ckks.slots.layout import (
    Diagonals,
    carried_terms,
    complex_columns,
    output_polynomials,
    real_weights,
)
from secure_infer.ckks.slots.program import Layer, Program
from secure_infer.heads.network import Network, output_terms

Floats = NDArray[np.float64]
Polynomials = dict[int, Floats]
"""The integer polynomial (N,) of each power's coefficients."""

_BOTH = math.sqrt(2.0)
"""For complex errors: a real part in one row's answer, and an imaginary one of the row N/2 further."""


@dataclass(frozen=True)
class CompiledLayer:
    """diagonals: integer polynomials (inputs, shifts, N). activations: one for each product (one between layers).

    What they carry, rounding included: weight (period, width), width a period too between layers, and terms (rows,
    period, degree + 1); rows are the head's outputs in the last layer, else the layer's own units on the diagonal, one
    row. Rounding between layers is complex: real parts reach the outputs, imaginary ones those of the row N/2 further.
    """

    diagonals: Floats
    activations: list[Polynomials]
    weight: Floats | Slots
    terms: Floats | Slots


def compile_network(network: Network, program: Program) -> list[CompiledLayer]:
    """The polynomials of `network` for `program`, a layer each; the output's bias is added to the answers."""
    return [_layer(network, program, index) for index in range(len(program.layers))]


def _layer(network: Network, program: Program, index: int) -> CompiledLayer:
    layer, hidden = program.layers[index], network.hidden[index]
    diagonals = layer_diagonals(program, layer, hidden.weight, first=index == 0)
    effective, width = diagonals.effective, hidden.weight.shape[1]
    weight: Floats | Slots = real_weights(effective, width) if index == 0 else effective
    last = index + 1 == len(program.layers)
    exact = output_terms(network) if last else hidden.coefficients[None]
    padded = _enlarged(exact, (len(exact), layer.period, layer.degree + 1))
    activations, terms = (_outputs if last else _between)(program, layer, padded)
    return CompiledLayer(diagonals.polynomials, activations, weight, terms)


def layer_diagonals(program: Program, layer: Layer, weight: Floats, *, first: bool) -> Diagonals:
    """The diagonals of a layer's matrix (units, width); the first one's columns are complex."""
    columns = layer.inputs * layer.shifts * layer.parts
    return Diagonals(
        complex_columns(weight, columns) if first else weight.astype(np.complex128),
        slots=program.plan.slots,
        period=layer.period,
        inputs=layer.inputs,
        parts=layer.parts,
        shifts=layer.shifts,
        babies=layer.babies,
        scale=layer.weight_scale,
    )


def _between(program: Program, layer: Layer, terms: Floats) -> tuple[list[Polynomials], Floats | Slots]:
    unit = np.arange(program.plan.slots) % layer.period
    carried = terms.astype(np.complex128)
    polynomials, rounded = _rounded(layer, [terms[0, unit, power] for power in range(layer.degree + 1)])
    for power, slots in rounded.items():
        carried[0, :, power] = slots[: layer.period]
    return [polynomials], carried


def _outputs(program: Program, layer: Layer, terms: Floats) -> tuple[list[Polynomials], Floats | Slots]:
    plan, carried, activations = program.plan, terms.copy(), []
    for product in range(plan.products):
        polynomials, rounded = _rounded(layer, output_polynomials(plan, terms, product))
        activations.append(polynomials)
        for power, slots in rounded.items():
            carried[list(plan.rows(product)), :, power] = carried_terms(plan, slots, product, layer.period)
    return activations, carried


def _rounded(layer: Layer, slots: Sequence[Slots | Floats]) -> tuple[Polynomials, dict[int, Slots]]:
    """The integer polynomial of each power above zero, the leading one never zero, and the slots that it carries."""
    polynomials, carried = {}, {}
    for power in range(1, layer.degree + 1):
        scale = layer.scale_of(power)
        polynomial = np.rint(to_coefficients(slots[power].astype(np.complex128)) * scale)
        if power == layer.degree and not polynomial.any():
            polynomial[0] = 1.0  # SEAL refuses a product that is zero
        polynomials[power] = polynomial
        carried[power] = to_slots(polynomial) / scale
    return polynomials, carried


def rounding_error(influence: Influence, compiled: Sequence[CompiledLayer]) -> float:
    """Largest |logit error| from rounded weights: the compiled network against the head's, at the worst input.

    What is of first order is bounded by norms, what is left (products of errors, padding) unit by unit.
    """
    network, bounds = influence.network, influence.bounds
    total = np.zeros(network.outputs)
    largest = errors = np.zeros(0)  # of the layer's input: |h|, and how far it is off
    for index, (hidden, made) in enumerate(zip(network.hidden, compiled, strict=True)):
        units, last = hidden.units, index + 1 == len(network.hidden)
        weight = _enlarged(hidden.weight, made.weight.shape)
        terms = _enlarged(output_terms(network) if last else hidden.coefficients[None], made.terms.shape)
        off = made.weight - weight
        moved = np.linalg.norm(off, 2) * bounds.input_norm(index)
        if index == 0:
            total += influence.plain[0] * moved
            shift = influence.contract.functional_bound(off.real)
        else:
            total += _BOTH * influence.plain[index] * (moved + np.linalg.norm(np.abs(off) @ errors))
            shift = np.abs(off) @ (largest + errors) + np.abs(weight) @ errors
        z = _enlarged(bounds.units[index], (made.terms.shape[1],))
        changed, slopes = np.abs(made.terms - terms), _slopes(terms)
        # p'(t + s) - p(t) beyond p(t + s) - p(t) to first order and p' - p at t.
        beyond = _values(_slopes(slopes), z + shift) * shift**2 / 2 + _values(_slopes(changed), z + shift) * shift
        if last:
            total += bounds.change((made.terms - terms).real[:, :units]) + beyond.sum(axis=1)
        else:
            slack = (_values(changed, z) + beyond)[0]
            following = np.abs(network.hidden[index + 1].weight)
            total += _BOTH * influence.plain[index + 1] * np.linalg.norm(following @ slack[:units])
            largest = _values(terms, z)[0]
            errors = slack + _values(slopes, z + shift)[0] * shift
    return float(total.max())


def _enlarged(array: Floats, shape: tuple[int, ...]) -> Floats:
    """`array` with zeros after it along every axis."""
    found = np.zeros(shape)
    found[tuple(slice(0, size) for size in array.shape)] = array
    return found


def _slopes(coefficients: Floats) -> Floats:
    """Coefficients of the derivatives; ascending, along the last axis."""
    return coefficients[..., 1:] * np.arange(1, coefficients.shape[-1])


def _values(coefficients: Floats, t: Floats) -> Floats:
    """Sums of |coefficients| t^power, t >= 0."""
    return np.asarray((np.abs(coefficients) * t[:, None] ** np.arange(coefficients.shape[-1])).sum(axis=-1))
