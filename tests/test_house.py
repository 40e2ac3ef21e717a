"""The house: a module imports from lower floors or its own room only, and no ``__init__`` re-exports."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pair_pkg"
FLOORS = {
    "columns": 0, "errors": 0, "interrupts": 0, "records": 0, "data": 1, "modeling": 2, "mlm": 3, "pairs": 3,
    "training": 4, "report": 5, "search": 5, "export": 5, "hub": 5, "stages": 6, "__main__": 7,
}  # fmt: skip
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
def test_an_init_holds_a_docstring_only(path):
    docstring, *rest = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr) and isinstance(docstring.value.value, str)
    if path.parent == PACKAGE:
        rest = [node for node in rest if not (isinstance(node, ast.Assign) and node.targets[0].id == "__version__")]
    assert not rest


def test_no_drawer():
    names = {part.removesuffix(".py") for path in MODULES for part in path.relative_to(PACKAGE).parts}
    assert not names & {"utils", "common", "helpers", "misc"}
