"""Nothing that is loaded runs: no pickles, no remote code, and keys stay where they belong."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from ume_retrieval import ModelError, ReasoningEmbedder

ROOT = Path(__file__).parents[2]
PACKAGES = ("ume_retrieval", "integrations", "training")


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("role", ["embedder", "reasoner"])
def test_pickled_weights_are_refused(random_pair: Path, tmp_path: Path, role: str) -> None:
    pair = shutil.copytree(random_pair, tmp_path / "pair")
    (pair / role / "model.safetensors").unlink()
    torch.save({"a": Trap(tmp_path / "sprung")}, pair / role / "pytorch_model.bin")
    with pytest.raises(ModelError) as caught:
        ReasoningEmbedder.from_pretrained(pair, cache=None, device="cpu")
    assert caught.value.hint
    assert not (tmp_path / "sprung").exists()


def test_honest_weights_in_a_pickle_are_refused_too(random_pair: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    pair = shutil.copytree(random_pair, tmp_path / "pair")
    torch.save(load_file(pair / "embedder" / "model.safetensors"), pair / "embedder" / "pytorch_model.bin")
    (pair / "embedder" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors"):
        ReasoningEmbedder.from_pretrained(pair, reasoner=None, cache=None, device="cpu")


def test_code_that_comes_with_a_checkpoint_does_not_run(random_pair: Path, tmp_path: Path) -> None:
    pair = shutil.copytree(random_pair, tmp_path / "pair")
    for file in ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        path = pair / "embedder" / file
        if path.exists():
            config = json.loads(path.read_text(encoding="utf-8"))
            config["auto_map"] = {"AutoModel": "evil.Evil", "AutoProcessor": "evil.Evil", "AutoConfig": "evil.Evil"}
            path.write_text(json.dumps(config), encoding="utf-8")
    (pair / "embedder" / "evil.py").write_text(
        f"import os\nos.mkdir({str(tmp_path / 'sprung')!r})\nclass Evil: pass\n", encoding="utf-8"
    )
    with suppress(ModelError):  # refused or passed over: both are safe
        ReasoningEmbedder.from_pretrained(pair, reasoner=None, cache=None, device="cpu")
    assert not (tmp_path / "sprung").exists()


def test_the_trap_is_one(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))  # noqa: S301  # to see that it works
    assert (tmp_path / "sprung").exists()


def calls() -> list[tuple[Path, ast.Call, str]]:
    """Every call in the packages, with its name as written."""
    return [
        (path, node, ast.unparse(node.func))
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]


def keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(one.value) for one in call.keywords if one.arg == name), None)


RAY_UNITS = ROOT / "integrations" / "ume_ray" / "units.py"
"""Ray moves objects between its own workers as pickles, whoever makes them; docs/scale.md says what follows."""


def test_no_call_can_run_what_it_reads() -> None:
    found = calls()
    assert len(found) > 1_000
    wrong = []
    for path, call, name in found:
        last = name.rpartition(".")[2]
        bad = (
            (name.startswith("pickle.") and path != RAY_UNITS)
            or name.startswith(("cloudpickle.", "dill.", "joblib.", "marshal.", "shelve."))
            or name in {"eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "tempfile.mktemp"}
            or (last == "load" and name.startswith("torch.") and keyword(call, "weights_only") != "True")
            or keyword(call, "allow_pickle") == "True"
            or keyword(call, "shell") == "True"
            or keyword(call, "verify") == "False"
            or keyword(call, "trust_remote_code") == "True"
        )
        if bad:
            wrong.append(f"{path.relative_to(ROOT)}:{call.lineno}: {name}")
    assert wrong == []


def test_no_default_trusts_remote_code_or_fetches() -> None:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    continue
                both = node.args.args + node.args.kwonlyargs
                defaults = [None] * (len(node.args.args) - len(node.args.defaults)) + node.args.defaults
                for one, default in zip(both, [*defaults, *node.args.kw_defaults], strict=True):
                    if default is not None and one.arg in {"trust_remote_code", "allow_remote", "follow_symlinks"}:
                        assert ast.unparse(default) in {"False", "()"}, f"{path}:{node.name}"
