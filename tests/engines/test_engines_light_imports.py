"""Programs import what they use: the package is light, and models on servers need neither torch nor transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from server_stub import KEY, Stub, completion, embedding, reply

from ume_retrieval import TCot
from ume_retrieval.tcot import render

HEAVY = {"torch", "transformers", "sentence_transformers", "accelerate", "vllm", "ray", "sklearn", "pandas"}

ON_SERVERS = """
import json, sys
from ume_retrieval import ReasoningEmbedder
from ume_retrieval.engines.server.options import ServerOptions

url, key = sys.argv[1:]
options = ServerOptions(reasoner_url=url, embedder_url=url, api_key=key)
embedder = ReasoningEmbedder.from_pretrained(
    "qwen3-vl-embedding-2b", reasoner="qwen3-vl-2b", engine="server", server=options, cache=None
)
result = embedder.encode_query("red circle", return_traces=True)
modules = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps([result.vectors.tolist(), result.traces[0].tcot.answer, modules]))
"""


def python(code: str, *arguments: str) -> Any:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  # our own interpreter
    return json.loads(done.stdout)


def test_an_app_whose_models_are_on_servers_imports_no_framework(stub: Stub) -> None:
    def answer(path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/models":
            return None
        if path == "/v1/embeddings":
            return reply(embedding(3.0, 4.0))
        return reply(completion(render(TCot("Seen.", "Yes.", "a circle", keywords=("circle",)))))

    stub.answer = answer
    vector, answered, modules = python(ON_SERVERS, stub.url, KEY)
    assert [round(value, 6) for value in vector] == [0.6, 0.8]
    assert answered == "a circle"
    assert {"numpy", "PIL", "httpx"} <= set(modules)
    assert not HEAVY & set(modules)
    assert [path for path, _, _ in stub.seen].count("/v1/chat/completions") == 1


ALONE = """
import json, sys

before = set(sys.modules)
import ume_retrieval

print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_the_package_itself_imports_nothing_heavy() -> None:
    modules = python(ALONE)
    assert [name for name in modules if name.startswith("ume_retrieval")] == ["ume_retrieval", "ume_retrieval.former"]
    assert len(modules) < 20


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    import ume_retrieval

    assert ume_retrieval.__version__ == version("ume-retrieval")
