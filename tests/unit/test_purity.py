"""The domain decides and does nothing else: what it may import, and what it may not call."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "hub_idle_exporter"
MODULES = sorted((PACKAGE / "domain").glob("*.py"))
ALLOWED = {
    "bisect", "collections", "collections.abc", "dataclasses", "datetime", "durationpy", "enum",
    "fnmatch", "functools", "heapq", "itertools", "json", "math", "msgspec", "re", "typing",
    "unicodedata",
}  # fmt: skip
ACTING = {"open", "print", "input", "exec", "eval", "__import__"}


def imports(tree: ast.AST) -> set[str]:
    """Return what is imported from outside the domain."""
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
             for alias in node.names}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level != 1:
            found.add(f"{'.' * node.level}{node.module}")
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_the_domain_is_pure(module: Path) -> None:
    tree = ast.parse(module.read_text())
    assert imports(tree) <= ALLOWED
    called = {node.func.id for node in ast.walk(tree)
              if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
    assert not called & ACTING
    assert "datetime.now(" not in module.read_text()
