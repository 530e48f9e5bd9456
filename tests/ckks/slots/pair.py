"""Both sides of a slot plan in one process, and networks to try it on."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from secure_infer.ckks import keymaterial
from secure_infer.ckks.answers import read_answer
from secure_infer.ckks.blinding import Blinder
from secure_infer.ckks.plan import Privacy
from secure_infer.ckks.slots import SlotEvaluator, pack_input
from secure_infer.ckks.slots.noise import evaluation_noise
from secure_infer.ckks.slots.planner import DEGREES, Demand, Layout, Planner, layouts
from secure_infer.ckks.slots.program import Program
from secure_infer.errors import UnsupportedHead
from secure_infer.heads import InputContract, Linear
from secure_infer.heads.network import Hidden, Network
from secure_infer_client.keys import SecretKey
from secure_infer_server.dataplane import load_query


def network(widths: tuple[int, ...], degree: int = 2, *, seed: int = 0, size: float = 1.0) -> Network:
    """widths: features, hidden layers, outputs. size: of the outputs, roughly, on rows of norm one."""
    rng = np.random.default_rng(seed)
    hidden = []
    for width, units in pairwise(widths[:-1]):
        # Rows of norm one on the first layer; later ones take the root mean square of what comes in.
        weight = rng.normal(size=(units, width)) / np.sqrt(width)
        coefficients = rng.normal(size=(units, degree + 1)) / np.arange(1, degree + 2)
        coefficients[:, 0] = 0.0
        hidden.append(Hidden(weight, coefficients))
    output = rng.normal(size=(widths[-1], widths[-2])) * size / np.sqrt(widths[-2])
    return Network(hidden, Linear(output, rng.normal(size=widths[-1])))


def contract(features: int, bound: float = 1.0, norm: float | None = 1.0) -> InputContract:
    return InputContract(features, bound, norm)


def smallest(planner: Planner, demand: Demand, degrees: tuple[int, ...] = DEGREES) -> Program:
    """A program of the smallest ring that has one; the last refusal when none has."""
    refusal: UnsupportedHead | None = None
    for degree in degrees:
        for layout in layouts(planner.network, degree):
            for early in range(layout.parts.bit_length()):
                try:
                    return planner.program(replace(layout, early=early), demand)
                except UnsupportedHead as problem:
                    refusal = problem
    raise refusal or UnsupportedHead("no layout")


class SlotPair:
    """A client and a server of one program."""

    def __init__(self, network: Network, program: Program) -> None:
        self.network, self.program, self.plan = network, program, program.plan
        self.evaluator = SlotEvaluator(network, program)
        self.key = SecretKey(self.plan.parameters)
        self.upload = self.key.upload(self.plan).data
        material = keymaterial.parse(self.plan, self.upload)
        self.keys = keymaterial.load(self.plan, material)
        private = self.plan.privacy is Privacy.BOTH_PRIVATE
        self.blind = Blinder(self.plan, material.public).blind if private else None

    @classmethod
    def of(cls, planner: Planner, layout: Layout, demand: Demand) -> SlotPair:
        return cls(planner.network, planner.program(layout, demand))

    def query(self, x: np.ndarray) -> list[bytes]:
        return [self.key.encrypt(p) for p in pack_input(self.plan, x)]

    def loaded(self, query: list[bytes]) -> list:
        return load_query(self.plan, query)

    def answers(self, x: np.ndarray) -> list[bytes]:
        return self.evaluator.evaluate(self.loaded(self.query(x)), self.blind, self.keys)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return read_answer(self.plan, self.key.rows(self.plan), self.answers(x))


def worst_inputs(network: Network, contract: InputContract, count: int = 2) -> np.ndarray:
    """Inputs on the contract's edge that stretch outputs furthest, by projected gradient ascent from several starts."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, contract.features))
    found = []
    for k in range(min(count, network.outputs)):
        for sign in (1.0, -1.0):
            rows = project(x, contract)
            for _ in range(30):
                rows = project(rows + 10.0 * direction(network, rows, k) * sign, contract)
            best = int(np.argmax(sign * network(rows)[:, k]))
            found.append(rows[best])
    return np.array(found)


def noisiest_input(network: Network, contract: InputContract) -> np.ndarray:
    """The input at which errors in the last layer's arguments move an output most, by ascent from several starts."""
    rng = np.random.default_rng(1)
    best, largest = rng.normal(size=(1, contract.features)), -1.0
    for k in range(min(network.outputs, 25)):
        x = project(rng.normal(size=(4, contract.features)), contract)
        for _ in range(25):
            x = project(x + 10.0 * _uphill(network, x, k), contract)
        power = _slopes(network, x, k)[0]
        if power.max() > largest:
            best, largest = x[[np.argmax(power)]], power.max()
    return best[0]


def _slopes(network: Network, x: np.ndarray, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum of squared slopes of an output in its arguments (B,), and what moves it (B, units)."""
    for layer in network.hidden[:-1]:
        x = (layer.coefficients * (x @ layer.weight.T)[..., None] ** np.arange(layer.degree + 1)).sum(axis=-1)
    layer = network.hidden[-1]
    c, t, powers = layer.coefficients, x @ layer.weight.T, np.arange(layer.degree + 1)
    first = (c[:, 1:] * powers[1:] * t[..., None] ** powers[:-1]).sum(axis=-1) * network.output.weight[row]
    second = (c[:, 2:] * powers[2:] * powers[1:-1] * t[..., None] ** powers[:-2]).sum(axis=-1) * network.output.weight[
        row
    ]
    return (first**2).sum(axis=-1), first * second


def _uphill(network: Network, x: np.ndarray, row: int) -> np.ndarray:
    step = 1e-4 * np.linalg.norm(x)
    if len(network.hidden) == 1:
        found = _slopes(network, x, row)[1] @ network.hidden[0].weight
    else:
        moves = np.random.default_rng(0).normal(size=(8, x.shape[1]))
        change = [_slopes(network, x + step * m, row)[0] - _slopes(network, x, row)[0] for m in moves]
        found = np.stack(change, axis=1) @ moves
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-300)


def noise(planner: Planner, program: Program, x: np.ndarray, repeats: int) -> tuple[float, float]:
    """Evaluation noise of a program's answers: predicted at the worst input, measured (the noisiest output's) at x.

    The answers are those of the same program without blinds, kept exactly.
    """
    plan = replace(program.plan, answer_bits=0, flood=0.0, smudging_bits=0, privacy=Privacy.INPUT_PRIVATE)
    pair = SlotPair(planner.network, Program(plan, program.layers))
    answers = np.array([pair(x) for _ in range(repeats)])
    return evaluation_noise(planner.influence, program), float(answers.std(axis=0, ddof=1).max())


def project(x: np.ndarray, contract: InputContract) -> np.ndarray:
    """Rows scaled to the contract's norm, then clipped to its bound."""
    x = x * (1 - 1e-12) * contract.largest_norm / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
    if contract.norm is None:
        return contract.bound * np.sign(x)
    return np.clip(x, -contract.bound, contract.bound)


def direction(network: Network, x: np.ndarray, row: int) -> np.ndarray:
    """Gradients of an output (B, d), each of length one."""
    values, slopes = [x], []
    for layer in network.hidden:
        t = values[-1] @ layer.weight.T
        powers = np.arange(1, layer.degree + 1)
        slopes.append((layer.coefficients[:, 1:] * powers * t[..., None] ** (powers - 1)).sum(axis=-1))
        values.append((layer.coefficients * t[..., None] ** np.arange(layer.degree + 1)).sum(axis=-1))
    found = np.broadcast_to(network.output.weight[row], values[-1].shape)
    for layer, slope in zip(reversed(network.hidden), reversed(slopes), strict=True):
        found = (found * slope) @ layer.weight
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-300)
