"""Names: presets, folders, hub ids, and what is said when a name means nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

import ume_retrieval
from ume_retrieval import EmbedderSpec, InputError, ModelError, ReasonerSpec, ReasoningEmbedder, TraceCache
from ume_retrieval.checkpoint import write_spec
from ume_retrieval.engines import load as engines_module
from ume_retrieval.engines import registry
from ume_retrieval.engines.load import ENGINES, Engine, LoadOptions, choose_engine
from ume_retrieval.engines.registry import Resolved, presets, resolve_embedder, resolve_reasoner, resolve_reranker
from ume_retrieval.errors import IncompatibleModel
from ume_retrieval.testing import PLAIN_PROMPTS, FakeReasoner, HashEmbedder, fake_embedder

EMBED_RL = EmbedderSpec(family="embed-rl", matryoshka_dims=(8, 16))
ASKS = ReasonerSpec(prompts=PLAIN_PROMPTS, max_tokens=99)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    for role, spec in (("embedder", EMBED_RL), ("reasoner", ASKS)):
        (tmp_path / "pair" / role).mkdir(parents=True)
        write_spec(spec, tmp_path / "pair" / role)
    return tmp_path / "pair"


def test_every_preset_resolves_by_any_case_and_by_its_hub_id() -> None:
    for preset in presets():
        if preset.model == "bundled":
            continue
        resolve = {"embedder": resolve_embedder, "reasoner": resolve_reasoner, "reranker": resolve_reranker}[
            preset.role
        ]
        for name in (preset.name, preset.name.upper(), preset.model, preset.model.lower()):
            resolved = resolve(name)
            assert (resolved.model, resolved.spec, resolved.reasoner) == (preset.model, preset.spec, preset.reasoner)


def test_every_default_reasoner_is_itself_a_preset() -> None:
    reasoners = {preset.name for preset in presets() if preset.role == "reasoner"}
    assert {preset.reasoner for preset in presets() if preset.role == "embedder"} <= reasoners


def test_matryoshka_dimensions_end_at_the_whole_vector() -> None:
    for preset in presets():
        if isinstance(preset.spec, EmbedderSpec) and preset.spec.matryoshka_dims:
            assert preset.spec.matryoshka_dims[-1] == preset.dimension


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("jinaai/jina-clip-v2", "sentence-transformers"),
        ("someone/My-Embed-RL-2B-tuned", "embed-rl"),
        ("someone/qwen3-vl-embedding-2b-finance", "qwen3-vl-embedding"),
    ],
)
def test_other_hub_ids_are_understood_by_their_names(name: str, family: str) -> None:
    resolved = resolve_embedder(name)
    assert isinstance(resolved.spec, EmbedderSpec)
    assert (resolved.model, resolved.spec.family, resolved.reasoner) == (name, family, None)


def test_a_folder_that_describes_itself(pair: Path) -> None:
    assert resolve_embedder(str(pair / "embedder")) == Resolved(str(pair / "embedder"), None, EMBED_RL)
    assert resolve_reasoner(str(pair / "reasoner")) == Resolved(str(pair / "reasoner"), None, ASKS)


def test_a_folder_that_holds_a_pair(pair: Path) -> None:
    resolved = resolve_embedder(str(pair))
    assert (resolved.model, resolved.reasoner) == (str(pair / "embedder"), str(pair / "reasoner"))
    assert resolve_reasoner(str(pair)).spec == ASKS


def test_the_bundled_pair_is_found_inside_the_package(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "files", lambda package: pair.parent / package)
    with pytest.raises(ModelError, match="ume-tiny"):
        resolve_embedder("ume-tiny")
    (pair.parent / "ume_retrieval" / "pretrained").mkdir(parents=True)
    pair.rename(pair.parent / "ume_retrieval" / "pretrained" / "ume-tiny")
    assert resolve_embedder("ume-tiny").spec == EMBED_RL
    assert resolve_embedder("UME-Tiny").reasoner == "ume-tiny"
    assert resolve_reasoner("ume-tiny").spec == ASKS


def test_folders_that_other_libraries_wrote(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")
    spec = resolve_embedder(str(tmp_path)).spec
    assert isinstance(spec, EmbedderSpec)
    assert spec.family == "sentence-transformers"
    with pytest.raises(ModelError, match="holds no model"):
        resolve_reasoner(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert isinstance(resolve_reasoner(str(tmp_path)).spec, ReasonerSpec)


def test_a_downloaded_folder_is_understood_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "Embed-RL-4B"
    folder.mkdir()
    spec = resolve_embedder(str(folder)).spec
    assert isinstance(spec, EmbedderSpec)
    assert spec.family == "embed-rl"


def test_a_folder_that_says_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as raised:
        resolve_embedder(str(tmp_path))
    assert "ume.json" in raised.value.hint


def test_a_description_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ume.json").write_text(json.dumps({"role": "embedder", "family": "unheard of"}))
    with pytest.raises(IncompatibleModel):
        resolve_embedder(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("embed-rl-2", "embed-rl-2b"),
        ("ume-tny", "ume-tiny"),
        ("qwen3-vl-embeding-8b", "qwen3-vl-embedding-8b"),
        ("zzz", "ume-tiny"),
    ],
)
def test_a_misspelt_name_is_answered_with_near_ones(name: str, hint: str) -> None:
    with pytest.raises(ModelError) as raised:
        resolve_embedder(name)
    assert hint in raised.value.hint


@pytest.mark.parametrize("name", ["/no/such/folder", "./ume-tiny", "a/b/c", "~/nothing", ""])
def test_a_path_that_is_not_there_is_never_taken_for_a_hub_id(name: str) -> None:
    for resolve in (resolve_embedder, resolve_reasoner):
        with pytest.raises(ModelError):
            resolve(name)


def test_roles_are_not_mixed_up(pair: Path) -> None:
    for name in ("qwen3-vl-8b", "Qwen/Qwen3-VL-8B-Instruct", str(pair / "reasoner")):
        with pytest.raises(ModelError, match="reasoner"):
            resolve_embedder(name)
    for name in ("embed-rl-2b", "ZoengHouNaam/Embed-RL-2B", str(pair / "embedder")):
        with pytest.raises(ModelError, match="embedder"):
            resolve_reasoner(name)


def test_an_engine_that_does_not_exist_names_those_that_do() -> None:
    for name in ("abacus", "servers", ""):
        with pytest.raises(InputError) as raised:
            choose_engine(name)
        assert "transformers" in raised.value.hint


class Loads:
    """An engine of fakes that notes what it was asked to load."""

    def __init__(self) -> None:
        self.loaded: list[tuple[str, Resolved, LoadOptions]] = []

    def embedder(self, resolved: Resolved, options: LoadOptions) -> HashEmbedder:
        self.loaded.append(("embedder", resolved, options))
        return HashEmbedder()

    def reasoner(self, resolved: Resolved, options: LoadOptions) -> FakeReasoner:
        self.loaded.append(("reasoner", resolved, options))
        return FakeReasoner()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Loads:
    loads = Loads()
    everything = {**ENGINES, "fake": Engine(loads.embedder, loads.reasoner)}
    monkeypatch.setattr(engines_module, "ENGINES", MappingProxyType(everything))
    monkeypatch.setenv("UME_CACHE_DIR", str(tmp_path / "cache"))
    return loads


def test_a_preset_brings_its_reasoner(loads: Loads, tmp_path: Path) -> None:
    embedder = ReasoningEmbedder.from_pretrained("embed-rl-2b", engine="fake", device="cpu", dtype="float32")
    assert [(role, resolved.model) for role, resolved, _ in loads.loaded] == [
        ("embedder", "ZoengHouNaam/Embed-RL-2B"),
        ("reasoner", "Qwen/Qwen3-VL-8B-Instruct"),
    ]
    assert loads.loaded[0][2] == LoadOptions("cpu", "float32", trust_remote_code=False)
    assert embedder.cache is not None
    assert embedder.cache.path == tmp_path / "cache" / "traces.sqlite3"
    assert embedder.encode_query("a cat").shape == (64,)


def test_a_pair_folder_brings_its_reasoner(loads: Loads, pair: Path) -> None:
    ReasoningEmbedder.from_pretrained(pair, engine="fake", cache=None)
    assert [resolved.model for _, resolved, _ in loads.loaded] == [str(pair / "embedder"), str(pair / "reasoner")]


def test_a_reasoner_is_chosen_replaced_or_left_out(loads: Loads, pair: Path, tmp_path: Path) -> None:
    chosen = FakeReasoner(name="chosen")
    cache = TraceCache(tmp_path / "own.sqlite3")
    options = {"engine": "fake", "cache": cache}
    assert ReasoningEmbedder.from_pretrained(pair, reasoner=chosen, engine="fake", cache=cache).reasoner is chosen
    assert ReasoningEmbedder.from_pretrained(pair, reasoner=None, engine="fake", cache=cache).reasoner is None
    assert ReasoningEmbedder.from_pretrained("owner/other", engine="fake", cache=None).reasoner is None
    assert [role for role, _, _ in loads.loaded] == ["embedder"] * 3
    assert options["cache"] is cache
    ReasoningEmbedder.from_pretrained(
        "owner/other", reasoner="qwen3-vl-2b", engine="fake", cache=tmp_path / "p.sqlite3"
    )
    assert loads.loaded[-1][1].model == "Qwen/Qwen3-VL-2B-Instruct"
    assert (tmp_path / "p.sqlite3").is_file()


def test_a_misspelt_reasoner_shows_before_anything_is_loaded(loads: Loads, pair: Path) -> None:
    with pytest.raises(ModelError):
        ReasoningEmbedder.from_pretrained(pair, reasoner="qwen3-vl-9", engine="fake")
    assert loads.loaded == []


def test_importing_the_library_loads_nothing_heavy() -> None:
    script = (
        "import sys, ume_retrieval\n"
        "before = sorted(name for name in sys.modules if name.startswith('ume_retrieval'))\n"
        "from ume_retrieval import ReasoningEmbedder, Item, TraceCache\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'qdrant_client'}\n"
        "print(before, sorted(heavy & sys.modules.keys()))"
    )
    printed = subprocess.run(  # noqa: S603 - the tests' own interpreter
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == "['ume_retrieval', 'ume_retrieval.former'] []"


def test_every_public_name_is_there() -> None:
    for name in ume_retrieval.__all__:
        assert getattr(ume_retrieval, name) is not None
        assert name in dir(ume_retrieval)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        ume_retrieval.nothing_of_the_kind  # noqa: B018 - looking it up is the test
    assert np.isfinite(fake_embedder(reasoner=None).encode_query("a", reasoning="never")).all()
