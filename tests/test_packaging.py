"""The wheel: what it holds, and that it demonstrates itself in an empty folder."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return next(out.glob("*.whl"))


def test_contents(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names}
    packages = {"secure_infer", "secure_infer_client", "secure_infer_server", "secure_infer_benchmarks"}
    assert {top for top in tops if not top.endswith(".dist-info")} == packages
    needed = {
        "secure_infer/py.typed",
        "secure_infer/v1/inference_pb2.pyi",
        "secure_infer/models/icd10-chapter-linear.head",
        "secure_infer/models/icd10-chapter-linear.md",
        "secure_infer/models/icd10-chapter.head",
        "secure_infer/models/icd10-chapter.md",
        "secure_infer/models/wdbc.head",
        "secure_infer/models/wdbc.md",
        "secure_infer_client/samples/wdbc_test.csv",
        "secure_infer_client/py.typed",
        "secure_infer_client/samples/icd10_test.jsonl",
        "secure_infer_client/samples/icd9_test.jsonl",
        "secure_infer_client/text/tokenizer.json",
        "secure_infer_client/text/NOTICE",
        "secure_infer_client/web/page/index.html",
        "secure_infer_client/web/page/app.js",
        "secure_infer_client/web/page/style.css",
        "secure_infer_client/web/page/icon.svg",
        "secure_infer_server/py.typed",
    }
    assert needed <= names
    assert not [name for name in names if "test_" in name or name.endswith((".pyc", ".key"))]
    assert wheel.stat().st_size < 8 << 20


def test_the_installed_wheel_demonstrates_itself_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """Installed without its dependencies beside an environment that has them, as a release would find them."""
    environment = tmp_path / "env"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    site = next((environment / "lib").glob("python*")) / "site-packages"
    install = ["pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([sys.executable, "-m", *install], check=True, timeout=60)
    dependencies = next(p for p in map(Path, sys.path) if p.name == "site-packages")
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    command = [str(python), "-P", "-m", "secure_infer.cli", "demo", "--texts", "12", "--json"]
    done = subprocess.run(command, cwd=empty, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["texts"] == 12
    where = subprocess.run(
        [str(python), "-P", "-c", "import secure_infer; print(secure_infer.__file__)"],
        capture_output=True,
        text=True,
        cwd=empty,
    )
    assert str(site) in where.stdout
    assert not list(empty.iterdir())
