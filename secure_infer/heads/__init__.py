"""The model side: layers, the head, its artifact file and its plaintext evaluation, the reference for every engine."""

from secure_infer.heads.contract import NORM_TOLERANCE, InputContract
from secure_infer.heads.head import Head
from secure_infer.heads.layers import Layer, Linear, Polynomial, ReLU, Square
from secure_infer.heads.spec import ModelSpec
from secure_infer.heads.task import Task

__all__ = [
    "NORM_TOLERANCE",
    "Head",
    "InputContract",
    "Layer",
    "Linear",
    "ModelSpec",
    "Polynomial",
    "ReLU",
    "Square",
    "Task",
]
