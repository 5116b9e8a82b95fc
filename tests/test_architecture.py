"""What may import what, where tests are, how large files, folders and functions are, and how dense the code is."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("streams", "methods", "orchestrator")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

# The floors of `orchestrator`, from the ground up. A module imports its own floor and those below it; a module that is named
# twice stands on the floor of its longest name.
FLOORS: tuple[tuple[str, ...], ...] = (
    (
        "orchestrator.determinism",
        "orchestrator.errors",
        "orchestrator.interruption",
        "orchestrator.logs",
        "orchestrator.redaction",
        "orchestrator.storage",
    ),
    ("orchestrator.config",),
    ("orchestrator.models",),
    ("orchestrator.store",),
    ("orchestrator.planning",),
    ("orchestrator.evaluation",),
    ("orchestrator.training",),
    ("orchestrator.retention",),
    ("orchestrator.cluster",),
    ("orchestrator.report",),
    ("orchestrator.tracking",),
    ("orchestrator.run",),
    ("orchestrator.sync",),
    ("orchestrator.search",),
    ("orchestrator.verification",),
    (
        "orchestrator.bench",
        "orchestrator.contract",
        "orchestrator.cli",
        "orchestrator.data_report",
        "orchestrator.dry_run",
        "orchestrator.listing",
        "orchestrator.__main__",
    ),
)
RAY_MODULES = ("orchestrator.cluster", "orchestrator.search.ray_tune")
MLFLOW_MODULES = ("orchestrator.tracking",)

MOST_FILES_IN_A_FOLDER = 13
MOST_LINES_OF_A_FILE = 320
MOST_LINES_OF_A_FUNCTION = 45

# What torchtitan, Composer, Syne Tune and PEFT have, measured by this same counting: comprehensions 5 to 12, conditional
# expressions 4 to 6 and parallel assignments up to 2 per 1,000 lines that are not blank; 4 to 13 comments per 100.
MOST_COMPREHENSIONS = 12.0
MOST_CONDITIONAL_EXPRESSIONS = 9.0
MOST_PARALLEL_ASSIGNMENTS = 1.5
FEWEST_COMMENTS = 4.0


def module_name(path: Path) -> str:
    """The dotted name of a file."""
    relative = path.relative_to(ROOT).with_suffix("")
    parts = [part for part in relative.parts if part != "__init__"]
    return ".".join(parts)


def is_module(name: str) -> bool:
    """Whether one of our packages has a module of that name."""
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def imported_modules(path: Path) -> set[str]:
    """The full names of the modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: imports are absolute here"
            for alias in node.names:
                # `from a import b` needs `a.b` if that is a module of ours, and else what `a` itself defines
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if is_module(submodule) else node.module)
    return found


def is_in(module: str, packages: tuple[str, ...]) -> bool:
    """Whether a module is one of the packages or lies in one."""
    return any(module == package or module.startswith(package + ".") for package in packages)


def floor_of(module: str) -> int | None:
    """The floor of a module of `orchestrator`, counted from the ground; None for what is no floor's."""
    for number, rooms in enumerate(FLOORS):
        if is_in(module, rooms):
            return number
    return None


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_dependencies_point_inward(path: Path) -> None:
    module = module_name(path)
    imported = imported_modules(path)
    package = module.split(".")[0]
    if package in ("streams", "methods"):
        others = tuple(other for other in PACKAGES if other != package)
        assert not [name for name in imported if is_in(name, (*others, "ray", "mlflow"))]
    if any(is_in(name, ("ray",)) for name in imported):
        assert is_in(module, RAY_MODULES), "Ray has its rooms"
    if any(is_in(name, ("mlflow",)) for name in imported):
        assert is_in(module, MLFLOW_MODULES), "MLflow has its room"


@pytest.mark.parametrize(
    "path", [path for path in FILES if module_name(path).startswith("orchestrator.")], ids=module_name
)
def test_a_floor_uses_only_the_floors_below_it(path: Path) -> None:
    module = module_name(path)
    own_floor = floor_of(module)
    assert own_floor is not None, f"{module} is on no floor"
    for name in imported_modules(path):
        floor = floor_of(name)
        assert floor is None or floor <= own_floor, f"{module} imports {name}, which is above it"


def unsafe_reads(path: Path) -> list[str]:
    """What in a file runs code that lies in data: pickles, YAML with Python's tags, a hub's own code, `eval` and `exec`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            # tensors are safetensors; the loader of YAML is derived from the safe one
            name = ast.unparse(node.func)
            unsafe_yaml = name in ("yaml.load", "yaml.load_all") and "_UniqueKeys" not in ast.unparse(node)
            if unsafe_yaml or name in (
                "torch.load",
                "torch.save",
                "eval",
                "exec",
                "yaml.unsafe_load",
                "yaml.full_load",
            ):
                found.append(ast.unparse(node))
            for keyword in node.keywords:
                if keyword.arg in ("trust_remote_code", "allow_pickle") and ast.unparse(keyword.value) != "False":
                    found.append(ast.unparse(node))
    pickles = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    return found + sorted(pickles & imported_modules(path))


def test_nothing_that_is_read_can_run_code() -> None:
    assert {path.name: unsafe_reads(path) for path in FILES if unsafe_reads(path)} == {}


def test_a_read_that_can_run_code_is_found(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    lines = [
        "import pickle",
        "torch.load(a)",
        "yaml.load(a, yaml.Loader)",
        "model.eval()",
        "load(a, trust_remote_code=True)",
    ]
    bad.write_text("\n".join(lines))
    assert unsafe_reads(bad) == [
        "torch.load(a)",
        "yaml.load(a, yaml.Loader)",
        "load(a, trust_remote_code=True)",
        "pickle",
    ]


def test_no_circle_of_imports() -> None:
    """Within a floor too: each module can be understood after those that it imports."""
    names = {module_name(path): path for path in FILES}
    needs = {name: (imported_modules(path) & set(names)) - {name} for name, path in names.items()}
    # a package's `__init__` that hands out what its modules define is no circle unless a module asks the package back
    while needs:
        ready = [name for name, required in needs.items() if not required & set(needs)]
        assert ready, f"these import each other in a circle: {sorted(needs)}"
        for name in ready:
            del needs[name]


def test_the_rules_can_fail(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        "def f():\n    import ray.train\n    from mlflow import log_metric\n    from orchestrator.search import space\n"
    )
    found = imported_modules(bad)
    assert {"ray.train", "mlflow", "orchestrator.search.space"} <= found
    assert is_in("ray.train", ("ray",)) and not is_in("rays", ("ray",))
    search, training = floor_of("orchestrator.search.space"), floor_of("orchestrator.training.task")
    assert search is not None and training is not None and search > training


def defines_something(path: Path) -> bool:
    """Whether a module has a function or class of its own."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(node, definitions) for node in ast.parse(path.read_text()).body)


def has_tests(path: Path) -> bool:
    """Whether a file is there and has a test."""
    if not path.exists():
        return False
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            return True
    return False


def untested(paths: list[Path], root: Path) -> list[str]:
    """Where the tests of modules are missing: `a/b.py` has its own in `tests/a/test_b.py`."""
    missing = []
    for path in paths:
        place = path.relative_to(root)
        if place.name in ("__init__.py", "__main__.py"):
            # mostly these only hand out or call what others define
            if not defines_something(path):
                continue
            # what a package defines itself is tested under the package's name
            place = place.parent
        tests = root / "tests" / place.with_name(f"test_{place.stem}.py")
        if not has_tests(tests):
            missing.append(str(tests.relative_to(root)))
    return missing


def test_every_module_has_its_tests_at_the_mirrored_place() -> None:
    """Whoever changes a module knows where to look. Tests of what spans several modules may lie besides."""
    assert untested(FILES, ROOT) == []


def test_a_module_without_tests_is_found(tmp_path: Path) -> None:
    for module, text in {
        "a/__init__.py": '"""Says what it is for."""',
        "a/__main__.py": "from a.whole import main",
        "a/whole.py": "",
        "a/empty.py": "",
        "a/elsewhere.py": "",
        "a/b/__init__.py": "def find() -> None: ...",
        "a/c/__init__.py": "class Found: ...",
        "tests/a/test_whole.py": "def test_it() -> None: ...",
        "tests/a/test_empty.py": "def helper() -> None: ...",
        "tests/a/b/test_elsewhere.py": "def test_it() -> None: ...",
        "tests/a/test_c.py": "def test_it() -> None: ...",
    }.items():
        (tmp_path / module).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / module).write_text(text)
    modules = sorted((tmp_path / "a").rglob("*.py"))
    assert untested(modules, tmp_path) == ["tests/a/test_b.py", "tests/a/test_elsewhere.py", "tests/a/test_empty.py"]


def test_every_folder_says_what_it_is_for_and_is_small() -> None:
    folders = {path.parent for path in FILES}
    for folder in sorted(folders):
        init = folder / "__init__.py"
        assert init.exists(), folder
        assert ast.get_docstring(ast.parse(init.read_text())), f"{init}: no docstring"
        files = [path for path in folder.glob("*.py") if path != init]
        assert len(files) <= MOST_FILES_IN_A_FOLDER, f"{folder}: {len(files)} files"


def functions() -> Iterator[tuple[str, int]]:
    """Every function with its length in lines."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno
                yield f"{path.relative_to(ROOT)}:{node.name}", node.end_lineno - node.lineno + 1


def test_functions_fit_a_screen() -> None:
    too_long = [(name, length) for name, length in functions() if length > MOST_LINES_OF_A_FUNCTION]
    assert not too_long


def test_files_show_one_idea() -> None:
    too_long = [str(path) for path in FILES if path.read_text().count("\n") > MOST_LINES_OF_A_FILE]
    assert not too_long


COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def density(files: list[Path]) -> dict[str, float]:
    """How dense code is: expressions of three kinds per 1,000 lines that are not blank, and comments per 100."""
    counts: Counter[str] = Counter()
    for path in files:
        text = path.read_text()
        counts["lines"] += sum(1 for line in text.splitlines() if line.strip())
        for node in ast.walk(ast.parse(text)):
            counts["comprehensions"] += isinstance(node, COMPREHENSIONS)
            counts["conditional expressions"] += isinstance(node, ast.IfExp)
            counts["parallel assignments"] += is_parallel_assignment(node)
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            # a note to a tool explains nothing to a reader
            is_note_to_tool = token.string.startswith(("# type:", "# noqa", "# fmt"))
            counts["comments"] += token.type == tokenize.COMMENT and not is_note_to_tool
    thousands = counts["lines"] / 1000
    return {
        "comprehensions": counts["comprehensions"] / thousands,
        "conditional expressions": counts["conditional expressions"] / thousands,
        "parallel assignments": counts["parallel assignments"] / thousands,
        "comments": counts["comments"] / thousands / 10,
    }


def is_parallel_assignment(node: ast.AST) -> bool:
    """Whether a statement assigns several values at once, as `a, b = x, y` does."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
        return False
    return any(isinstance(target, ast.Tuple) for target in node.targets)


@pytest.mark.parametrize("package", PACKAGES)
def test_one_thought_a_line(package: str) -> None:
    found = density(sorted((ROOT / package).rglob("*.py")))
    assert found["comprehensions"] <= MOST_COMPREHENSIONS
    assert found["conditional expressions"] <= MOST_CONDITIONAL_EXPRESSIONS
    assert found["parallel assignments"] <= MOST_PARALLEL_ASSIGNMENTS
    assert found["comments"] >= FEWEST_COMMENTS


def test_density_counts_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "dense.py"
    lines = ["a, b = 1, 2  # a pair", "c = [x for x in (a, b)]", "d = a if b else c", "", "e = 1  # type: ignore"]
    file.write_text("\n".join(lines) + "\n")
    assert density([file]) == {
        "comprehensions": 250.0,
        "conditional expressions": 250.0,
        "parallel assignments": 250.0,
        "comments": 25.0,
    }


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
