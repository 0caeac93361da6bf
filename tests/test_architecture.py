"""The layout as data: which package and which room may import which, and that names mean one thing in a package."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SOURCES = {
    "ume_retrieval": ROOT,
    **dict.fromkeys(
        ("ume_cli", "ume_qdrant", "ume_llama_index", "ume_langchain", "ume_mteb", "ume_ray", "ume_serve"),
        ROOT / "integrations",
    ),
    **dict.fromkeys(("ume_eval", "ume_training"), ROOT / "training"),
}

PACKAGES: dict[str, set[str]] = {
    "ume_retrieval": set(),
    "ume_qdrant": {"ume_retrieval"},
    "ume_llama_index": {"ume_retrieval", "ume_qdrant"},
    "ume_langchain": {"ume_retrieval", "ume_qdrant"},
    "ume_mteb": {"ume_retrieval"},
    "ume_ray": {"ume_retrieval", "ume_qdrant"},
    "ume_serve": {"ume_retrieval", "ume_qdrant"},
    "ume_training": {"ume_retrieval"},
    "ume_eval": {"ume_retrieval", "ume_training"},
    "ume_cli": {"ume_retrieval", "ume_qdrant", "ume_ray", "ume_serve", "ume_training", "ume_eval"},
}
"""Packages that each package may import, besides itself."""

ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "inputs": {"errors"},
    "profiles": {"errors"},
    "vectors": {"errors"},
    "models": {"errors", "profiles"},
    "checkpoint": {"errors", "profiles", "util"},
    "chat": {"inputs"},
    "media": {"checkpoint", "errors", "inputs", "util"},
    "util": {"errors"},
    "gate": {"errors", "util"},
    "tcot": {"chat", "checkpoint", "errors", "inputs", "profiles"},
    "results": {"checkpoint", "errors", "tcot"},
    "engines": {"chat", "checkpoint", "errors", "inputs", "models", "profiles", "tcot", "util"},
    "pipeline": {
        *("chat", "checkpoint", "engines", "errors", "inputs", "media"),
        *("profiles", "results", "tcot", "util", "vectors"),
    },
    "report": {"errors", "inputs", "media", "tcot", "util"},
    "reranking": {
        *("chat", "checkpoint", "engines", "errors", "inputs", "media"),
        *("pipeline", "results", "tcot", "util"),
    },
    "testing": {"chat", "checkpoint", "engines", "pipeline", "tcot"},
    "verification": {"chat", "engines", "errors", "inputs", "models"},
}
"""Rooms of `ume_retrieval` that each room may import, besides itself."""


@cache
def modules(package: str) -> dict[str, ast.Module]:
    """Dotted names and syntax trees of a package's modules."""
    folder = SOURCES[package] / package
    return {
        ".".join(path.relative_to(SOURCES[package]).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for path in sorted(folder.rglob("*.py"))
    }


def imports(tree: ast.Module) -> Iterator[str]:
    """Modules that a module imports anywhere, in functions and for type checkers too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, "relative imports hide what is imported"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("package", SOURCES)
def test_a_package_imports_what_it_may(package: str) -> None:
    found = {name.split(".")[0] for tree in modules(package).values() for name in imports(tree)}
    assert (found & SOURCES.keys()) - {package} <= PACKAGES[package]


def test_rooms_import_what_they_may() -> None:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name, tree in modules("ume_retrieval").items():
        if "." in name:  # the package itself only names where its exports live
            used = {one for one in imports(tree) if one.startswith("ume_retrieval.")}
            found[room(name)] |= {room(one) for one in used if f"ume_retrieval.{room(one)}" in modules("ume_retrieval")}
    assert {name: used - {name} - ROOMS.get(name, set()) for name, used in found.items()} == {
        name: set() for name in found
    }


@pytest.mark.parametrize("graph", [PACKAGES, ROOMS], ids=["packages", "rooms"])
def test_what_may_be_imported_has_no_cycle(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("package", SOURCES)
def test_modules_do_not_import_each_other_in_a_circle(package: str) -> None:
    """Imports at the top of modules; what a function imports comes later."""
    trees = modules(package)
    graph = {
        name: {
            one
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for one in imports(ast.Module([node], []))
            # A package's __init__ runs before its modules, and may import them.
            if one in trees and one != name and not name.startswith(f"{one}.")
        }
        for name, tree in trees.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("package", SOURCES)
def test_a_class_name_means_one_thing_in_a_package(package: str) -> None:
    homes: defaultdict[str, list[str]] = defaultdict(list)
    for name, tree in modules(package).items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(name)
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    long = [
        path.relative_to(ROOT)
        for package, folder in SOURCES.items()
        for path in (folder / package).rglob("*.py")
        if len(path.read_text(encoding="utf-8").splitlines()) > 400
    ]
    assert long == []
