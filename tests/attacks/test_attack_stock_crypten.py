"""Claim: no party, alone, can work out the other party's masks or shares.

Adversary: one of the two parties, honest about the protocol and curious about what it sees, has in memory, or may ask for.
Unprotected variant: CrypTen 0.4.1 as it comes. Its generators have seeds of 32 bits that count; its third party hands one
party's stream to the other on request; its first-party provider lets party 0 draw all shares. Ours: the same protocols of
CrypTen's on our correlations.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from secure_infer.errors import MissingExtra
from secure_infer.mpc import correlations as dealing
from secure_infer.mpc.correlations import Bundle, Correlations, Product, Recipe, deal
from secure_infer.mpc.crypten import available
from secure_infer.mpc.crypten.needs import relu_needs
from secure_infer.mpc.link import MemoryLink, memory_links
from secure_infer.mpc.ring import Words
from secure_infer.mpc.sharing import join, split
from secure_infer.mpc.streams import KEY_BYTES, KeyedStream, fresh_key

try:
    available()
except MissingExtra as missing:
    pytest.skip(missing.message, allow_module_level=True)

import torch

from secure_infer.mpc.crypten import protocols

SECRET = [1.5, -2.25, 3.0, 40.0]
"""Party 1's input in the runs below."""


# Searching for a seed.

WINDOW = 1 << 16
"""Seeds tried here; all 2^32 take minutes on one core."""


def first_outputs(seeds: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The first 32-bit output of MT19937 for each seed (Matsumoto and Nishimura, 1998): words 0, 1 and 397 of its state."""
    state, kept = seeds.copy(), [seeds]
    for index in range(1, 398):
        state = np.uint32(1812433253) * (state ^ (state >> np.uint32(30))) + np.uint32(index)
        if index in (1, 397):
            kept.append(state)
    zero, one, far = kept
    y = (zero & np.uint32(0x80000000)) | (one & np.uint32(0x7FFFFFFF))
    x = far ^ (y >> np.uint32(1)) ^ ((y & np.uint32(1)) * np.uint32(0x9908B0DF))
    x ^= x >> np.uint32(11)
    x ^= (x << np.uint32(7)) & np.uint32(0x9D2C5680)
    x ^= (x << np.uint32(15)) & np.uint32(0xEFC60000)
    return x ^ (x >> np.uint32(18))


def stock_draws(seed: int, count: int) -> list[int]:
    """Ring elements as CrypTen draws them, from a torch generator."""
    generator = torch.Generator()
    generator.manual_seed(seed)
    return [torch.randint(-(2**63), 2**63 - 1, (), generator=generator).item() for _ in range(count)]


def test_torch_seeds_have_32_bits_that_count() -> None:
    assert stock_draws(12345, 4) == stock_draws(12345 + 2**40, 4)


def test_stock_party_0_finds_party_1s_masks_by_search() -> None:
    """CrypTen's third party draws both parties' seeds from one generator, and tells each party its own."""
    third_party = int.from_bytes(os.urandom(7), "little")
    start = (third_party & 0xFFFFFFFF) // WINDOW * WINDOW
    own, others = stock_draws(third_party, 2)

    halves = {(own + 2**63) >> 32, (own + 2**63) & 0xFFFFFFFF}
    window = np.uint32(start) + np.arange(WINDOW, dtype=np.uint32)
    candidates = window[np.isin(first_outputs(window), np.array(sorted(halves), dtype=np.uint32))]
    found = [found for found in (stock_draws(int(seed), 2) for seed in candidates) if found[0] == own]

    assert [seeds[1] for seeds in found] == [others]
    assert stock_draws(found[0][1], 8) == stock_draws(others, 8)


def test_every_bit_of_our_keys_counts() -> None:
    key = fresh_key()
    flipped = [bytes(b ^ (1 << bit % 8 if i == bit // 8 else 0) for i, b in enumerate(key)) for bit in range(256)]
    streams = {KeyedStream(one).words(2).tobytes() for one in [key, *flipped]}
    assert len(streams) == 257


def test_our_seeds_come_whole_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bytes] = []
    urandom = os.urandom

    def recorded(count: int) -> bytes:
        drawn.append(urandom(count))
        return drawn[-1]

    monkeypatch.setattr(os, "urandom", recorded)
    bundles = deal(Recipe("00", 1, (Product(3),)))
    assert all(len(bundle.seed) == KEY_BYTES == 32 and bundle.seed in drawn for bundle in bundles)
    assert bundles[0].seed != bundles[1].seed


# Asking for the other's stream, and drawing it oneself.

STOCK = """
import json, os, sys
from secure_infer.mpc.crypten.imports import load
crypten = load()
import torch
torch.set_num_threads(1)
rank, out, secret = int(os.environ["RANK"]), sys.argv[1], json.loads(sys.argv[2])
providers = crypten.mpc.provider
crypten.cfg.mpc.provider = "TTP"
if rank == 2:
    providers.TTPServer()
crypten.init()
client = providers.ttp_provider.TTPClient.get()
seen = {}
if rank == 0:
    # A request like any other, for a method that was meant for the third party itself.
    seen["asked"] = client.ttp_request("_get_additive_PRSS", None, (3,), remove_rank=True).tolist()
else:
    # What party 1 draws for its share of the next mask.
    seen["mask"] = crypten.common.rng.generate_random_ring_element((3,), generator=client.get_generator()).tolist()

crypten.cfg.mpc.provider = "TFP"
drawn, opened = [], []
tfp = providers.tfp_provider
draw = tfp.generate_random_ring_element
tfp.generate_random_ring_element = lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1]
network = crypten.communicator.get()
reduce = network.all_reduce
network.all_reduce = lambda *a, **k: opened.append(reduce(*a, **k)) or opened[-1]
x = crypten.cryptensor(torch.tensor(secret if rank else [0.0] * len(secret)), src=1)
x.square()
seen["computed"] = ((opened[0] + drawn[0]).double() / 2**16).tolist()
with open(out, "w") as file:
    json.dump(seen, file)
torch.distributed.barrier(group=network.main_group)
os._exit(0)
"""


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each party of an untouched CrypTen saw, beside a third party, over its own network on this machine."""
    folder = tmp_path_factory.mktemp("stock")
    outputs = [folder / f"{rank}.json" for rank in range(3)]
    common = {
        "WORLD_SIZE": "2",
        "RENDEZVOUS": f"file://{folder}/meet",
        "DISTRIBUTED_BACKEND": "gloo",
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        "OMP_NUM_THREADS": "1",
    }
    running = []
    for rank, output in enumerate(outputs):
        command = [sys.executable, "-c", STOCK, str(output), json.dumps(SECRET if rank == 1 else [0.0] * len(SECRET))]
        environment = {**os.environ, **common, "RANK": str(rank)}
        with Path(folder / f"{rank}.log").open("wb") as log:
            running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        for rank in (0, 1):
            assert running[rank].wait(timeout=120) == 0, (folder / f"{rank}.log").read_text()
    finally:
        for process in running:
            process.kill()
            process.wait()
    return [json.loads(output.read_text()) for output in outputs[:2]]


def test_stock_third_party_hands_out_the_other_partys_masks(stock: list[dict[str, Any]]) -> None:
    assert stock[0]["asked"] == stock[1]["mask"]


def test_stock_first_party_reads_the_other_partys_input(stock: list[dict[str, Any]]) -> None:
    assert stock[0]["computed"] == SECRET


def test_one_partys_bundle_says_nothing_of_the_others_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """With party 1's bundle held fixed, party 0's may be any."""
    recipe = Recipe("00", 1, (Product(4),))
    own = fresh_key()

    def dealt() -> tuple[Bundle, Bundle]:
        keys = iter([fresh_key(), own])
        monkeypatch.setattr(dealing, "fresh_key", lambda: next(keys))
        return deal(recipe)

    deals = [dealt() for _ in range(20)]
    assert {(bundle.seed, bundle.recipe, bundle.corrections) for _, bundle in deals} == {(own, recipe.digest, b"")}
    others = [Correlations(bundle, recipe, 0).take(Product(4)) for bundle, _ in deals]
    assert len({share.tobytes() for shares in others for share in shares.values()}) == 20 * 3


def ours(x: Words) -> tuple[list[Words], tuple[MemoryLink, MemoryLink], list[Words]]:
    """Both outputs of CrypTen's ReLU on our side, the links, and each party's share of the last product's first mask."""
    recipe = Recipe("00", 1, relu_needs(x.size))
    links, outputs, masks = memory_links(), [x, x], [x, x]
    shares, bundles = split(x), deal(recipe)

    def party(rank: int) -> None:
        outputs[rank] = protocols.relu(shares[rank], links[rank], Correlations(bundles[rank], recipe, rank), rank)
        again = Correlations(bundles[rank], recipe, rank)
        masks[rank] = [again.take(need) for need in recipe.needs][-1]["a"]

    threads = [threading.Thread(target=party, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outputs, links, masks


def test_neither_of_our_parties_has_the_mask_of_an_opening() -> None:
    x = np.rint(np.array(SECRET) * 2**16).astype(np.int64).view(np.uint64)
    outputs, links, masks = ours(x)
    np.testing.assert_array_equal(join(*outputs).view(np.int64), np.maximum(x.view(np.int64), 0))
    # The product opens x - a first; both parties see it. Who had a, as CrypTen's party 0 has, would read x.
    opened = join(*(np.frombuffer(link.log[-1], np.uint64)[: x.size] for link in links))
    np.testing.assert_array_equal(opened + masks[0] + masks[1], x)
    for known in (masks[0], masks[1], np.zeros_like(x)):
        assert not np.any(opened + known == x)
