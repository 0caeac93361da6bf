"""The published vectors on the real vLLM: in this process, and behind real servers."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from parity_cases import EXACT, FAMILIES, Recording, copy_checkpoints, cosine, ids_of, item_of, least_cosine, profile_of
from vllm_server import Started, ended, start, wait_for
from widened import widen_heads

from ume_retrieval import Embedder, ReasoningEmbedder
from ume_retrieval.engines.load import LoadOptions, choose_engine
from ume_retrieval.engines.registry import resolve_embedder
from ume_retrieval.engines.server.options import ServerOptions
from ume_retrieval.engines.vllm.embedder import VllmEmbedder
from ume_retrieval.profiles import find_profile
from ume_retrieval.testing import FakeReasoner

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here; `make test-vllm` brings it"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's own start is not free of warnings
]

KEY = "k3y-of-a-test"
SWITCHES = ("--runner", "pooling", "--convert", "embed", "--max-model-len", "8192")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoints with heads of 32 numbers, the least that vLLM's attention on CPUs takes."""
    made = copy_checkpoints(tmp_path_factory.mktemp("snapshots"))
    for folder in made.values():
        widen_heads(folder)
    return made


@pytest.fixture(scope="module")
def vllm(folders: dict[str, Path], started: dict[str, Started]) -> dict[str, Embedder]:
    """Engines in this process, which load while the servers start."""
    assert started.keys() == folders.keys()
    return {family: load("vllm", folder, LoadOptions("cpu", "float32")) for family, folder in folders.items()}


@pytest.fixture(scope="module")
def started(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Started]]:
    logs = tmp_path_factory.mktemp("servers")
    servers = {family: start(str(folder), KEY, logs / family, *SWITCHES) for family, folder in folders.items()}
    with ended(servers.values()):
        yield servers


@pytest.fixture(scope="module")
def server(folders: dict[str, Path], started: dict[str, Started]) -> dict[str, Embedder]:
    for one in started.values():
        wait_for(one)
    return {
        family: load("server", folders[family], LoadOptions(server=ServerOptions(embedder_url=one.url, api_key=KEY)))
        for family, one in started.items()
    }


def load(engine: str, folder: Path, options: LoadOptions) -> Embedder:
    return choose_engine(engine).load_embedder(resolve_embedder(str(folder)), options)


def embed(engine: Embedder, family: str, case: dict[str, Any]) -> tuple[float, int]:
    """Cosine with the published vector, and how many tokens were embedded."""
    profile = find_profile(family, profile_of(family, case))  # type: ignore[arg-type]  # families by name
    recording = Recording(engine)
    recording.spec = engine.spec.model_copy(update={"profile": profile})
    reply = case["input"].get("tcot")
    pipeline = ReasoningEmbedder(recording, FakeReasoner(lambda _: reply) if reply else None, cache=None)
    vector = pipeline.encode_query(item_of(family, case), reasoning="always" if reply else "never")
    return cosine(vector, case["expected"]), recording.tokens


@pytest.mark.parametrize("engine", ["vllm", "server"])
@pytest.mark.parametrize(("family", "case"), EXACT)
def test_vectors_are_the_published_ones(
    request: pytest.FixtureRequest, engine: str, family: str, case: dict[str, Any]
) -> None:
    found, tokens = embed(request.getfixturevalue(engine)[family], family, case)
    assert tokens == len(ids_of(family, case["expected"]))
    assert found >= least_cosine(case)


@pytest.mark.parametrize("family", FAMILIES)
def test_token_ids_are_the_published_ones(
    vllm: dict[str, Embedder], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = vllm[family]
    assert isinstance(engine, VllmEmbedder)
    call, outputs = engine.engine.call, []

    def recording(method: str, *arguments: Any) -> Any:
        outputs.append(call(method, *arguments))
        return outputs[-1]

    monkeypatch.setattr(engine.engine, "call", recording)
    cases = [param.values[1] for param in EXACT if param.values[0] == family]
    for case in cases:
        embed(engine, family, case)
    assert [list(one.prompt_token_ids) for [one] in outputs] == [ids_of(family, case["expected"]) for case in cases]
