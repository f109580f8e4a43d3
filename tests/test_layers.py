"""Who may import whom, read from the source; and importing is quick, quiet and leaves nothing behind."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "samaritan"

LAYERS = (
    {"_version", "errors"},
    {"optional"},
    {"geometry", "resampling", "products"},
    {"volume"},
    {"prompts"},
    {
        "io",
        "transforms",
        "models",
        "adapt",
        "losses",
        "set_losses",
        "metrics",
        "simulate",
        "phantoms",
    },
    {"assembly"},  # models with their adapters: the two know nothing of each other
    {"recipes", "data", "checkpoints", "pictures"},
    {"infer", "train", "export"},
    {
        "evaluation",  # asks models as a person does, so it stands on infer; of masks alone it needs no torch
        "bridges",  # other programs come in here
    },
    {"environment"},
    {"cli"},
    {"__main__"},
)
"""Rooms from the ground up. A room imports itself and rooms below it, never beside or above it."""

RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}

TORCH_ROOMS = {
    "transforms", "models", "adapt", "losses", "set_losses", "simulate", "assembly", "data", "checkpoints",
    "products", "infer", "train", "export", "environment", "evaluation", "bridges",
}  # fmt: skip
"""Rooms that may import torch at all; the command line may inside functions."""

LIGHT_MODULES = (
    "errors", "optional", "geometry", "resampling", "volume", "prompts", "io", "phantoms", "pictures",
    "metrics", "evaluation", "cli", "__main__",
)  # fmt: skip
"""Modules whose import must not bring torch."""

HEAVY = (
    "torch",
    "scipy",
    "matplotlib",
    "SimpleITK",
    "pydicom",
    "nibabel",
    "PIL",
)
"""What `import samaritan` and `samaritan --help` must not load."""


@dataclass(frozen=True)
class Import:
    """One imported module: where, what, inside a function or not, for annotations only or not."""

    file: Path
    line: int
    module: str
    local: bool
    typing_only: bool

    @property
    def room(self) -> str:
        return room_of(self.file)

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


def room_of(file: Path) -> str:
    part = file.relative_to(SOURCE).parts[0]
    return part.removesuffix(".py")


def imports_of(file: Path) -> Iterator[Import]:
    """Every import in a file, inside functions and `TYPE_CHECKING` blocks included."""

    def visit(node: ast.AST, local: bool, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, local, typing_only)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write imports in full, not relative"
            for alias in node.names:
                yield Import(file, node.lineno, f"{node.module}.{alias.name}", local, typing_only)
        elif getattr(getattr(node, "func", None), "attr", "") == "import_module":
            for argument in ast.walk(node.args[0]):  # type: ignore[attr-defined]
                if isinstance(argument, ast.Constant):
                    yield Import(file, node.lineno, str(argument.value), local, typing_only)
        for child in ast.iter_child_nodes(node):
            inner = local or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            yield from visit(child, inner, typing_only or (checking and child in node.body))

    yield from visit(ast.parse(file.read_text("utf-8")), False, False)


FILES = sorted(SOURCE.rglob("*.py"))
IMPORTS = [found for file in FILES for found in imports_of(file)]


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done


# -- layers --------------------------------------------------------------------------------------


def test_every_room_has_its_layer() -> None:
    rooms = {room_of(file) for file in FILES} - {"__init__"}
    assert rooms <= set(RANK), f"give {sorted(rooms - set(RANK))} a place in LAYERS"


def test_rooms_import_downwards_only() -> None:
    wrong = []
    for found in IMPORTS:
        parts = found.module.split(".")
        if parts[0] != "samaritan" or found.room == "__init__" or len(parts) < 2:
            continue
        target = parts[1] if parts[1] in RANK else "__init__"
        if target == "__init__":
            # `from samaritan import __version__` names the version; all else has a room of its own
            if parts[1] != "__version__":
                wrong.append(f"{found}: import it from its own room")
        elif target != found.room and RANK[target] >= RANK[found.room]:
            wrong.append(f"{found}: {found.room} is not above {target}")
    assert not wrong, "\n".join(wrong)


def test_the_package_itself_imports_its_rooms_for_annotations_only() -> None:
    eager = [f for f in IMPORTS if f.file == SOURCE / "__init__.py" and not f.typing_only]
    assert {f.module for f in eager if f.module.startswith("samaritan")} == {
        "samaritan._version.__version__"
    }


def test_nothing_stands_on_a_bridge() -> None:
    assert not [
        str(f) for f in IMPORTS if f.module.startswith("samaritan.bridges") and f.room != "bridges"
    ]


def test_torch_stays_in_its_rooms() -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if found.module.split(".")[0] == "torch"
        and not found.typing_only
        and found.room not in TORCH_ROOMS
        and not (found.room == "cli" and found.local)
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_torchvision() -> None:
    wrong = [str(found) for found in IMPORTS if found.module.split(".")[0] == "torchvision"]
    assert not wrong, "\n".join(wrong)


def test_optional_packages_are_required_in_one_place() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    named = {re.split(r"[^\w-]", line)[0].replace("-", "_") for e in extras.values() for line in e}
    named -= {"samaritan"}
    direct = [str(f) for f in IMPORTS if f.module.split(".")[0] in named and not f.typing_only]
    assert not direct, "use samaritan.optional.require:\n" + "\n".join(direct)
    places: dict[str, set[str]] = {}
    for file in FILES:
        if file.name == "optional.py":
            continue
        for package, extra in re.findall(
            r'\brequire\(\s*"([\w.]+)",\s*extra="(\w+)"', file.read_text("utf-8")
        ):
            places.setdefault(package.split(".")[0], set()).add(file.name)
            lines = " ".join(extras[extra])
            assert package.split(".")[0] in lines.replace("-", "_"), f"{package} is not in {extra}"
    assert places, "the pattern of optional.require has changed: adapt this test"
    assert all(len(files) == 1 for files in places.values()), places


def test_library_code_never_prints() -> None:
    wrong = []
    for file in FILES:
        if room_of(file) in ("cli", "__main__"):
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                wrong.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not wrong, wrong


# -- importing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_bring_no_torch(module) -> None:
    python(f"import sys, samaritan.{module}; assert 'torch' not in sys.modules")


def test_importing_the_package_loads_nothing_heavy() -> None:
    done = python("import sys, samaritan; print(*sys.modules)")
    loaded = set(done.stdout.split())
    assert not loaded & set(HEAVY)
    assert "numpy" not in loaded  # first use brings it
    assert "typer" not in loaded


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['samaritan', '--help']\n"
        "from samaritan.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('loaded', *sys.modules, file=sys.stderr)"
    )
    done = python(code)
    assert "segment" in done.stdout
    assert not set(done.stderr.split()) & {*HEAVY, "numpy"}


def best_of(n: int, code: str) -> float:
    return min(float(python(code).stdout.split()[-1]) for _ in range(n))


def test_importing_the_package_is_quick() -> None:
    code = "import time; start = time.process_time(); import samaritan; print(time.process_time() - start)"
    assert best_of(5, code) < 0.3


def test_help_is_quick() -> None:
    code = (
        "import os, subprocess, sys;"  # time of the processor: what else runs on the machine is no matter
        "subprocess.run([sys.executable, '-m', 'samaritan', '--help'], capture_output=True, check=True);"
        "times = os.times(); print(times.children_user + times.children_system)"
    )
    assert best_of(8, code) < 0.5


def test_importing_every_module_has_no_side_effects(tmp_path) -> None:
    code = """
import importlib, os, pkgutil, random, sys, threading, warnings
warnings.simplefilter("error")
import matplotlib, nibabel, numpy, pydicom, rich.progress, scipy, SimpleITK, torch, typer
import samaritan

def randomness():
    return random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

def settings():
    own = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    return own, threading.active_count(), list(warnings.filters), list(sys.path), dict(os.environ)

os.chdir(os.environ["HOME"])
before = randomness(), settings()
names = [m.name for m in pkgutil.walk_packages(samaritan.__path__, "samaritan.")]
for name in names:
    importlib.import_module(name)
for one, two in zip(before, (randomness(), settings())):
    for old, new in zip(one, two):
        assert old == new, f"importing changed {old} into {new}"
assert "matplotlib.pyplot" not in sys.modules
assert not torch.cuda.is_initialized()
assert len(names) > 20
"""
    done = python(
        code, HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path), MPLCONFIGDIR=str(tmp_path / "mpl")
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert [path.name for path in tmp_path.iterdir() if path.name != "mpl"] == []


def test_public_names_are_there_and_have_homes() -> None:
    import samaritan

    for name in samaritan.__all__:
        value = getattr(samaritan, name)
        assert value is not None
        if name != "__version__":
            home = samaritan._HOMES[name]
            assert value is getattr(sys.modules[home], name)
    assert set(dir(samaritan)) == set(samaritan.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = samaritan.nonsense


def test_public_names_are_not_hidden_by_modules() -> None:
    import samaritan

    modules = {path.stem for path in SOURCE.iterdir()}
    assert not modules & set(
        samaritan.__all__
    )  # `import samaritan.NAME` would replace the function
