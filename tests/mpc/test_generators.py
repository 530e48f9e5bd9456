"""The guard against generators: what it refuses, what it leaves working, and what notices a draw."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from secure_infer.errors import ForbiddenRandomness
from secure_infer.mpc.generators import TORCH_FUNCTIONS, TORCH_METHODS, untouched


def guarded(code: str) -> list[str]:
    """Lines that `code` prints in a process that has called `forbid`."""
    program = (
        "import sys\n"
        "from secure_infer.errors import ForbiddenRandomness\n"
        "from secure_infer.mpc import generators\n"
        "def refused(draw):\n"
        "    try: draw()\n"
        "    except ForbiddenRandomness: return True\n"
        "    return False\n"
        "generators.forbid(); generators.forbid()\n" + code
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


def test_python_and_numpy_generators_refuse() -> None:
    code = (
        "import random, numpy as np\n"
        "from numpy.random import rand\n"
        "draws = [random.random, lambda: random.choice([1]), lambda: random.seed(1), random.randbytes,\n"
        "         np.random.rand, rand, np.random.default_rng, lambda: np.random.RandomState(1), np.random.PCG64,\n"
        "         lambda: np.random.seed(1), np.random.SeedSequence, lambda: np.random.Generator(None)]\n"
        "print(all(map(refused, draws)))"
    )
    assert guarded(code)[0] == "True"


def test_what_a_server_process_uses_still_works() -> None:
    code = (
        "import asyncio, logging, multiprocessing, secrets, ssl, tempfile, threading, uuid\n"
        "from concurrent import futures\n"
        "import grpc, grpc.aio, tqdm\n"
        "from grpc_health.v1 import health, health_pb2, health_pb2_grpc\n"
        "logging.getLogger('x').warning('line')\n"
        "ssl.create_default_context()\n"
        "uuid.uuid4(); secrets.token_hex(); secrets.randbelow(9); secrets.choice('ab')\n"
        "with tempfile.TemporaryDirectory(), tempfile.NamedTemporaryFile(): pass\n"
        "for _ in tqdm.tqdm(range(3)): pass\n"
        "server = grpc.server(futures.ThreadPoolExecutor(2))\n"
        "health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)\n"
        "port = server.add_insecure_port('127.0.0.1:0'); server.start()\n"
        "ask = health_pb2.HealthCheckRequest()\n"
        "with grpc.insecure_channel(f'127.0.0.1:{port}') as channel:\n"
        "    health_pb2_grpc.HealthStub(channel).Check(ask, timeout=10)\n"
        "async def again():\n"
        "    async with grpc.aio.insecure_channel(f'127.0.0.1:{port}') as channel:\n"
        "        await health_pb2_grpc.HealthStub(channel).Check(ask, timeout=10)\n"
        "asyncio.run(again()); server.stop(None)\n"
        "child = multiprocessing.get_context('spawn').Process(target=print); child.start(); child.join()\n"
        "assert child.exitcode == 0\n"
        "try:\n"
        "    import prometheus_client, urllib.request\n"
        "    http, _ = prometheus_client.start_http_server(0, '127.0.0.1')\n"
        "    urllib.request.urlopen(f'http://127.0.0.1:{http.server_port}').read(); http.shutdown()\n"
        "except ImportError: pass\n"
        "from secure_infer.mpc.sharing import split\n"
        "import numpy as np; split(np.zeros(3, np.uint64))\n"
        "print('works', flush=True)"
    )
    assert "works" in guarded(code)


def test_torch_is_refused_when_it_was_loaded_later() -> None:
    pytest.importorskip("torch")
    code = (
        "import torch\n"
        "before = refused(lambda: torch.rand(1))\n"
        "generators.refuse_loaded()\n"
        "draws = [lambda: torch.rand(1), lambda: torch.zeros(1).normal_(), torch.Generator, lambda: torch.manual_seed(1)]\n"
        "print(before, all(map(refused, draws)), torch.ones(2).sum().item())"
    )
    assert guarded(code)[0] == "False True 2.0"


def test_every_drawing_operator_of_torch_is_named() -> None:
    torch = pytest.importorskip("torch")
    drawing = set()
    for qualified in torch._C._dispatch_get_all_op_names():
        namespace, _, rest = qualified.partition("::")
        name, _, overload = rest.partition(".")
        packet = getattr(torch.ops.aten, name, None) if namespace == "aten" else None
        operator = getattr(packet, overload or "default", None)
        if operator is not None and torch.Tag.nondeterministic_seeded in operator.tags:
            drawing.add(name)
    # Layers of whole networks draw for their dropout alone, which is off outside training.
    drawing = {name for name in drawing if not name.startswith(("_", "rnn_", "gru", "lstm", "miopen"))}
    assert {name for name in drawing if callable(getattr(torch, name, None))} <= set(TORCH_FUNCTIONS)
    assert {name for name in drawing if hasattr(torch.Tensor, name)} <= set(TORCH_METHODS)
    assert all(hasattr(torch, name) for name in TORCH_FUNCTIONS)
    assert all(hasattr(torch.Tensor, name) for name in TORCH_METHODS)


def test_a_draw_is_noticed() -> None:
    with untouched():
        np.random.default_rng(1).random()
    with pytest.raises(ForbiddenRandomness, match=r"numpy\.random"), untouched():
        np.random.rand()
    with pytest.raises(ForbiddenRandomness, match="random"), untouched():
        random.random()


def test_a_draw_from_torch_is_noticed() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(ForbiddenRandomness, match="torch"), untouched():
        torch.rand(1)
