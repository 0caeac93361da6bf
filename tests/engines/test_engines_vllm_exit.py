"""A program that used the `vllm` engine ends by itself."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here; `make test-vllm` brings it"),
]

PROGRAM = """
import tempfile

folder = tempfile.TemporaryDirectory()  # something to finalize, before anything knows of multiprocessing


def main():
    from ume_retrieval.engines.load import LoadOptions, choose_engine
    from ume_retrieval.engines.registry import resolve_embedder

    return choose_engine("vllm").load_embedder(resolve_embedder("ume-tiny"), LoadOptions(device="cpu"))


if __name__ == "__main__":
    embedder = main()
    print("used", flush=True)
"""


def test_a_program_ends(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    ended = subprocess.run([sys.executable, str(program)], capture_output=True, timeout=400, check=False)  # noqa: S603
    assert (ended.returncode, ended.stdout) == (0, b"used\n"), ended.stderr[-2000:].decode()
