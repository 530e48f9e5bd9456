"""Where CrypTen is taken off its own network, correlations and randomness. All of it is set anew with every call."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from secure_infer.mpc import generators
from secure_infer.mpc.crypten import randomness
from secure_infer.mpc.crypten.communicator import LinkCommunicator
from secure_infer.mpc.crypten.imports import load
from secure_infer.mpc.crypten.needs import TIE_BITS
from secure_infer.mpc.crypten.provider import DealtProvider
from secure_infer.mpc.crypten.randomness import StreamName

_PROVIDER = "secure-infer"

SETTINGS = SimpleNamespace(
    communicator=SimpleNamespace(verbose=False),
    debug=SimpleNamespace(debug_mode=False, validation_mode=False),
    encoder=SimpleNamespace(precision_bits=TIE_BITS),
    functions=SimpleNamespace(max_method="pairwise"),
    mpc=SimpleNamespace(active_security=False, provider=_PROVIDER, protocol="beaver"),
)
"""All that these protocols look up. A plain namespace: CrypTen's own configuration object takes half of a ReLU's time."""


def bind() -> None:
    """Puts ours in place; the same values each time, so that calls in other threads are not disturbed."""
    crypten = load()
    generators.refuse_loaded()
    torch.set_num_threads(1)
    # `crypten.communicator.get` looks its class up by this name.
    crypten.communicator.DistributedCommunicator = LinkCommunicator
    crypten.communicator.__use_threads = False
    crypten.mpc.__SUPPORTED_PROVIDERS = {_PROVIDER: DealtProvider()}
    primitives, providers = crypten.mpc.primitives, crypten.mpc.provider
    # The modules that hold these functions, by import, under their own names.
    for module in (crypten.common.rng, primitives.arithmetic, providers.tfp_provider, providers.ttp_provider):
        module.generate_random_ring_element = randomness.generate_random_ring_element
    for module in (crypten.common.rng, primitives.binary, providers.tfp_provider, providers.ttp_provider):
        module.generate_kbit_random_tensor = randomness.generate_kbit_random_tensor
    cpu = torch.device("cpu")
    for name in ("prev", "next", "local", "global"):
        crypten.generators[name] = {cpu: StreamName(name)}
    crypten.cfg.set_config(SETTINGS)
    crypten.set_grad_enabled(False)
