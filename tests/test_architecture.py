"""What may import what; how long files and functions are."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"streams", "methods", "orchestrator"}
RAY_MODULES = ("orchestrator/cluster/", "orchestrator/search/ray_tune.py")
MLFLOW_PACKAGE = "orchestrator/tracking/"
FILES = [p for package in sorted(OURS) for p in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_dependencies_point_inward(path: Path) -> None:
    name, found = str(path.relative_to(ROOT)), imports(path)
    package = name.split("/")[0]
    if package in ("streams", "methods"):
        assert not found & ((OURS - {package}) | {"ray", "mlflow"})
    assert "ray" not in found or name.startswith(RAY_MODULES)
    assert "mlflow" not in found or name.startswith(MLFLOW_PACKAGE)


def test_the_rule_can_fail(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    import ray.train\n    from mlflow import log_metric\n")
    assert {"ray", "mlflow"} <= imports(bad)


def functions() -> Iterator[tuple[str, int]]:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno
                yield f"{path.relative_to(ROOT)}:{node.name}", node.end_lineno - node.lineno + 1


def test_functions_fit_a_screen() -> None:
    too_long = [(name, length) for name, length in functions() if length > 60]
    assert not too_long


def test_the_loop_runs_without_ray_mlflow_and_datasets(tmp_path: Path) -> None:
    """A process in which those packages cannot be imported trains and scores a sequence."""
    code = f"""
import sys
for absent in ("ray", "mlflow", "datasets"):
    sys.modules[absent] = None  # importing it raises, and looking for it finds nothing
from orchestrator import plan, run_sequence
from tests.conftest import small_config
from pathlib import Path
(sequence,) = plan(small_config(Path({str(tmp_path)!r}), methods=["ft+migu"]))
view = run_sequence(sequence)
assert view.status == "finished"
print(len(view.scores))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "30", done.stderr
