"""A module imports only what stands above it; each outside system has one door. Checked on the source, by its tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the ground up. The longest prefix counts, so a part of a package may have a place of its own.
ORDER = (
    "neuroint.registry",
    "neuroint.seeding",
    "neuroint.storage",
    "neuroint.data",
    "neuroint.modules",
    "neuroint.metrics",
    "neuroint.analysis",
    "neuroint.optimization",
    "neuroint.config",
    "neuroint.recordings",
    "neuroint.model",
    "neuroint.prediction",
    "neuroint.runtime",
    "neuroint.memory",
    "neuroint.evaluation",
    "neuroint.averaging",
    "neuroint.fit",
    "neuroint.results",
    "neuroint.train",
    "neuroint.tracking",
    "neuroint.sweep.selection",  # reads the journal alone, so that the report chooses the runs that the sweep chose
    "neuroint.report",
    "neuroint.sweep",  # its last act is to write the report
    "neuroint.cli",
)
# Modules outside the package, and the only ones that may import them.
DOORS = {
    "ray.train": ("neuroint.runtime",),
    "ray.tune": ("neuroint.sweep",),
    "ray": ("neuroint.runtime", "neuroint.sweep"),
    "optuna": ("neuroint.sweep",),
    "mlflow": ("neuroint.tracking",),
}


def is_under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def place(module: str) -> str | None:
    """The entry of ``ORDER`` that a module belongs to."""
    return max((entry for entry in ORDER if is_under(module, entry)), key=len, default=None)


def imported(tree: ast.AST, module: str) -> Iterator[str]:
    """Modules named in a file: by import statements anywhere, by ``importlib``, as attributes of ``ray``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parent, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and called(node.func) in ("import_module", "__import__"):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ray":
            yield f"ray.{node.attr}"


def called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def faults(source: str, module: str) -> list[str]:
    """What a module imports and may not."""
    found = []
    for name in dict.fromkeys(imported(ast.parse(source), module)):
        doors = next((allowed for outside, allowed in DOORS.items() if is_under(name, outside)), None)
        if doors is not None and not any(is_under(module, door) for door in doors):
            found.append(f"{module} imports {name}; only {', '.join(doors)} may")
        if name != module and is_under(name, "neuroint") and not stands_above(name, module):
            found.append(f"{module} imports {name}, which does not stand above it")
    return found


def stands_above(name: str, module: str) -> bool:
    here, there = place(module), place(name)
    if here is None or there is None:
        return False
    return ORDER.index(there) <= ORDER.index(here)


def files() -> dict[str, Path]:
    """Modules of the package by dotted name."""
    found = {}
    for path in sorted((ROOT / "neuroint").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = {name: path for name, path in files().items() if name != "neuroint"}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_stands_above_it(module):
    assert faults(MODULES[module].read_text(encoding="utf-8"), module) == []


def test_every_module_has_a_place_and_every_place_a_module():
    places = {module: place(module) for module in MODULES}
    assert [module for module, entry in places.items() if entry is None] == []
    assert set(places.values()) == set(ORDER)


def test_the_package_itself_imports_nothing():
    assert list(imported(ast.parse((ROOT / "neuroint/__init__.py").read_text()), "neuroint")) == []


def test_the_folder_mlflow_holds_no_python():
    assert list((ROOT / "mlflow").rglob("*.py")) == []


FORBIDDEN = [
    ("neuroint.modules.core.linear", "import neuroint.config"),
    ("neuroint.modules.core.linear", "from neuroint import config"),
    ("neuroint.modules.core.linear", "from neuroint.config.settings import Spec"),
    ("neuroint.modules.core.linear", "from ...config import Spec"),
    ("neuroint.modules.core.linear", "def f():\n    from neuroint.config import Spec"),
    ("neuroint.modules.core.linear", "if TYPE_CHECKING:\n    from neuroint.config import Spec"),
    ("neuroint.modules.core.linear", "import importlib\nimportlib.import_module('neuroint.config')"),
    ("neuroint.modules.core.linear", "from importlib import import_module\nimport_module('neuroint.config')"),
    ("neuroint.modules.core.linear", "__import__('neuroint.config')"),
    ("neuroint.modules.core.linear", "from neuroint import metrics"),
    ("neuroint.metrics.feve", "from neuroint.analysis.snr import snr_quintiles"),
    ("neuroint.data.base", "from neuroint.modules.base import Context"),
    ("neuroint.analysis.snr", "from neuroint.train import train_trial"),
    ("neuroint.config.parse", "from neuroint.sweep import samplers"),
    ("neuroint.report.page", "from neuroint.sweep.run import Sweeper"),
    ("neuroint.sweep.selection", "from neuroint.report import analyse"),
    ("neuroint.train", "from neuroint.cli import app"),
    ("neuroint.train", "import ray.train"),
    ("neuroint.train", "import ray"),
    ("neuroint.sweep.trial", "from ray import train"),
    ("neuroint.sweep.trial", "from ray.train import get_context"),
    ("neuroint.sweep.trial", "import ray\nray.train.get_context()"),
    ("neuroint.runtime", "from ray import tune"),
    ("neuroint.runtime", "from ray.tune import report"),
    ("neuroint.tracking.server", "import optuna"),
    ("neuroint.report.page", "def f():\n    import optuna.samplers as s"),
    ("neuroint.sweep.watch", "import mlflow"),
    ("neuroint.cli", "from mlflow.tracking import MlflowClient"),
    ("neuroint.modules.base", "import ray"),
    ("neuroint.metrics.feve", "import mlflow"),
    ("neuroint.somewhere_new", "from neuroint.registry import cores"),
]
ALLOWED = [
    ("neuroint.modules.core.linear", "from neuroint.registry import cores\nimport torch"),
    ("neuroint.modules.core.linear", "from neuroint.modules.base import Reads\nfrom ..base import Context"),
    ("neuroint.runtime", "def f():\n    import ray.train\n    from ray.train import get_context"),
    ("neuroint.sweep.trial", "from ray import tune\nimport optuna\nfrom ray.tune.integration.ray_train import X"),
    ("neuroint.sweep.driver", "import ray\nray.init()\nfrom neuroint.report import write_report"),
    ("neuroint.tracking.uploader", "import mlflow\nfrom mlflow import MlflowClient"),
    ("neuroint.report.arms", "from neuroint.sweep.selection import METRIC"),
    ("neuroint.train", "import raycasting, mlflow_like"),
]


@pytest.mark.parametrize(("module", "source"), FORBIDDEN)
def test_the_check_catches(module, source):
    assert len(faults(source, module)) == 1


@pytest.mark.parametrize(("module", "source"), ALLOWED)
def test_the_check_lets_pass(module, source):
    assert faults(source, module) == []
