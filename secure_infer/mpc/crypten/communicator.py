"""CrypTen's view of the network: openings between two parties, each one message over the session's link."""

from __future__ import annotations

from typing import Any

import torch

from secure_infer.errors import CorrelationMisuse
from secure_infer.mpc.crypten import session
from secure_infer.mpc.crypten.tensors import from_words, to_words
from secure_infer.mpc.link import Xor, opened

_SUM, _XOR = torch.distributed.ReduceOp.SUM, torch.distributed.ReduceOp.BXOR


class LinkCommunicator:
    """In the place of `crypten.communicator.DistributedCommunicator`; methods carry CrypTen's names.

    Its other methods (sending, scattering, pickled objects) do not exist here: a protocol that calls one fails.
    """

    @classmethod
    def is_initialized(cls) -> bool:
        return session.active()

    @classmethod
    def get(cls) -> LinkCommunicator:
        return cls()

    def get_rank(self) -> int:
        return session.current().party

    def get_world_size(self) -> int:
        return 2

    def all_reduce(self, input: Any, op: Any = _SUM, batched: bool = False) -> Any:
        """The values that both parties' shares stand for: of an int64 tensor, or of a list of them in one round."""
        if op not in (_SUM, _XOR):
            raise CorrelationMisuse("crypten: an opening joins shares by sum or exclusive or")
        tensors = input if batched else [input]
        shares = [to_words(tensor) for tensor in tensors]
        values = opened(session.current().link, *(map(Xor, shares) if op == _XOR else shares))
        found = [from_words(value) for value in values]
        return found if batched else found[0]
