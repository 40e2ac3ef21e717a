"""The house: a module imports from lower floors or its own room only, and public names are looked up when asked for."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pair_pkg"
FLOORS = {
    "columns": 0, "errors": 0, "interrupts": 0, "processes": 0, "records": 0, "data": 1, "modeling": 2, "mlm": 3,
    "pairs": 3, "training": 4, "report": 5, "search": 5, "export": 5, "hub": 5, "stages": 6, "__main__": 7,
}  # fmt: skip
LAZY = [
    "import lazy_loader",
    "__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)",
]
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else names
        yield from (name.split(".")[1] for name in names if name.startswith("pair_pkg."))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    upward = {other for other in imported_rooms(path) if FLOORS[other] >= FLOORS[room] and other != room}
    assert not (upward if FLOORS[room] else {other for other in upward if FLOORS[other]})


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_an_init_holds_a_docstring_and_no_import(path):
    """Nothing is imported before it is used: every circle of imports would pass through here, and --help is quick."""
    docstring, *rest = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr) and isinstance(docstring.value.value, str)
    lines = [ast.unparse(node) for node in rest]
    if path.parent == PACKAGE:
        assert lines.pop().startswith("__version__ = ")
    assert lines == (LAZY if path.with_suffix(".pyi").is_file() else [])


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.pyi")), ids=lambda path: path.parent.name)
def test_public_names_are_of_their_own_room(path):
    names = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    assert names
    for node in names:
        assert node.level == 1 and (path.parent / node.module.replace(".", "/")).with_suffix(".py").is_file()


def test_public_names_cost_nothing_before_they_are_used():
    rooms = ", ".join(
        ".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in sorted(PACKAGE.rglob("__init__.pyi"))
    )
    heavy = "{'torch', 'transformers', 'numpy'} & set(sys.modules)"
    program = f"import sys, {rooms}, pair_pkg.__main__; sys.exit(str({heavy}) if {heavy} else 0)"
    subprocess.run([sys.executable, "-c", program], cwd=PACKAGE.parent, check=True)


def test_no_drawer():
    names = {part.removesuffix(".py") for path in MODULES for part in path.relative_to(PACKAGE).parts}
    assert not names & {"utils", "common", "helpers", "misc"}
