"""A head as two parties evaluate it: polynomial networks with a ReLU between each and the next, and what they are at worst.

    Linear, Square, Linear, ReLU, Linear   is   [Linear, Square, Linear]  ReLU  [Linear]

Bounds of a stage hold on everything that the stage before can put out (`heads.network.Bounds` does the work).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from secure_infer.errors import UnsupportedHead
from secure_infer.heads.contract import InputContract
from secure_infer.heads.head import Head
from secure_infer.heads.layers import Floats, Layer, Linear, ReLU
from secure_infer.heads.network import Bounds, Network
from secure_infer.heads.split import contract_after, public_layers


@dataclass(frozen=True, eq=False)
class Stage:
    """network: between two ReLUs; None where one follows another, or the input. contract: what its inputs keep.
    rectified: whether a ReLU follows. found: what `precision` found out about it once, by name."""

    network: Network | None
    contract: InputContract
    rectified: bool
    found: dict[str, Floats] = field(default_factory=dict)

    @cached_property
    def bounds(self) -> Bounds:
        """Of the network; raises UnsupportedHead when there is none."""
        if self.network is None:
            raise UnsupportedHead("stage: no layers between one ReLU and the next")
        return Bounds(self.network, self.contract)


def stages(head: Head) -> list[Stage]:
    """The private layers of a head as stages; raises UnsupportedHead when there are none, or one cannot be evaluated."""
    layers = list(head.layers[head.public_layers :])
    if not layers:
        raise UnsupportedHead("every layer of the head is public: nothing is left to hide; evaluate it on the client")
    contract = contract_after(public_layers(head), head.contract)
    groups: list[list[Layer]] = [[]]
    for layer in layers:
        if isinstance(layer, ReLU):
            groups.append([])
        else:
            groups[-1].append(layer)
    found = []
    for index, group in enumerate(groups):
        rectified = index + 1 < len(groups)
        if not group and not rectified:
            break  # the ReLU before was the last layer
        network = _network(group, contract.features)
        found.append(Stage(network, contract, rectified))
        contract = contract if network is None else _after(network, contract)
    return found


def _network(group: Sequence[Layer], width: int) -> Network | None:
    if not group:
        return None
    return Network.of(group if isinstance(group[0], Linear) else [Linear(np.eye(width)), *group])


def _after(network: Network, contract: InputContract) -> InputContract:
    """What the outputs keep, and so what a ReLU of them keeps: it lengthens nothing."""
    largest = Bounds(network, contract).outputs
    norm = float(np.linalg.norm(largest))
    if not network.hidden:
        output = network.output
        norm = min(
            norm, float(np.linalg.norm(output.weight, 2)) * contract.largest_norm + float(np.linalg.norm(output.bias))
        )
    return InputContract(network.outputs, max(1e-9, float(largest.max())), max(1e-9, norm))
