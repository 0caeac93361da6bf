"""Documented modules that moved are importable by their former names, with a warning."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ume_retrieval.former import MOVED


def test_every_former_name_gives_todays_objects() -> None:
    """In a process of its own, since a name that was imported once does not warn again."""
    script = (
        "import importlib, warnings\n"
        "from ume_retrieval.former import MOVED\n"
        "for former, today in MOVED.items():\n"
        "    with warnings.catch_warnings(record=True) as caught:\n"
        "        warnings.simplefilter('always')\n"
        "        alias = importlib.import_module(former)\n"
        "    assert f'{former} is now {today}' in [str(one.message) for one in caught], former\n"
        "    module = importlib.import_module(today)\n"
        "    for name in vars(module):\n"
        "        if not name.startswith('__'):\n"
        "            assert getattr(alias, name) is getattr(module, name)\n"
        "print(len(MOVED))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.stdout.strip(), done.stderr) == (str(len(MOVED)), "")


def test_an_import_from_a_former_name() -> None:
    with pytest.warns(DeprecationWarning, match=r"ume_retrieval\.registry is now ume_retrieval\.engines\.registry"):
        from ume_retrieval.registry import resolve_embedder
    from ume_retrieval.engines.registry import resolve_embedder as today

    assert resolve_embedder is today
