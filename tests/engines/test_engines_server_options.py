"""Keys, addresses and options of servers, and how the environment names them."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path

import pytest
from server_stub import (
    GREEDY,
    KEY,
    SPEC,
    Stub,
    completion,
    embedding,
    reasoner_on,
    reply,
    words,
)
from typer.testing import CliRunner

from ume_cli.app import app
from ume_retrieval import InputError, ReasoningEmbedder, UmeError
from ume_retrieval.engines.load import LoadOptions, choose_engine
from ume_retrieval.engines.registry import resolve_embedder, resolve_reasoner
from ume_retrieval.engines.server.client import Server
from ume_retrieval.engines.server.options import ServerOptions, base_urls
from ume_retrieval.pipeline.trace_cache import trace_key

# The key is nobody else's business.


def test_the_key_is_sent_and_shown_nowhere(
    stub: Stub, naps: list[float], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    reasoner = reasoner_on(stub, naps)
    stub.answer = lambda path, body: reply({"error": f"bad {KEY}"}, 500)
    with pytest.raises(UmeError) as caught:
        reasoner.generate([words("hi")], GREEDY)
    options = ServerOptions(api_key=KEY)
    shown = [repr(options), str(options), repr(LoadOptions(server=options)), repr(asdict(options))]
    shown += [repr(reasoner), repr(vars(reasoner.server)), caplog.text, *capsys.readouterr()]
    shown += [json.dumps(stub.posted()), caught.value.message, caught.value.hint, repr(caught.value.__cause__)]
    assert caplog.text  # the client does log, at this level
    assert not [text for text in shown if KEY in text]
    assert stub.seen[-1][2]["Authorization"] == f"Bearer {KEY}"
    key = trace_key(
        content_id="1",
        side="query",
        target=None,
        reasoner=reasoner.info,
        prompts=SPEC.prompts,
        budget=SPEC.budget,
        sampling=GREEDY,
    )
    assert KEY not in key


@pytest.mark.parametrize("key", ["line\nbreak", "caf\u00e9", "tab\t"])
def test_a_key_that_no_header_carries_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(InputError) as caught:
        ServerOptions(api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "http://user:pass@host/",
        "http://host/?key=pass",
        "ftp://host",
        "host:80",
        "http://[",
        "http://host:pass",
        "http://host:99999",
        "http://host:0",
    ],
)
def test_an_address_that_carries_a_secret_or_is_none_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(InputError) as caught:
        base_urls(address, "UME_REASONER_URL")
    assert "pass" not in caught.value.message.replace("password", "")


@pytest.mark.parametrize("host", ["a..b", "xn--", "[v1.a]"])
def test_a_host_that_there_cannot_be_is_refused(host: str) -> None:
    with pytest.raises(InputError, match="is not a valid address"):
        Server(base_urls(f"http://{host}", "UME_REASONER_URL"), None, ServerOptions(attempts=1))


@pytest.mark.parametrize("bad", [{"concurrency": 0}, {"attempts": 0}, {"timeout_s": 0}])
def test_options_out_of_range_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(InputError):
        ServerOptions(**bad)


# From a name to a model.


def test_the_environment_says_where_the_models_are(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UME_REASONER_URL", stub.url)
    monkeypatch.setenv("UME_EMBEDDER_URL", f"{stub.url}/v1/")
    monkeypatch.setenv("UME_API_KEY", KEY)
    stub.answer = lambda path, body: reply(embedding(1.0, 0.0) if path.endswith("embeddings") else completion("x"))
    pipeline = ReasoningEmbedder.from_pretrained("ume-tiny", engine="server", cache=None)
    assert pipeline.info.embedder.name == "ume-tiny/embedder"
    assert pipeline.info.embedder.revision.startswith("sha256:")
    assert pipeline.info.embedder.engine == "server"
    assert pipeline.dimension == 2


def test_without_an_address_the_hint_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UME_REASONER_URL", "UME_EMBEDDER_URL"):
        monkeypatch.delenv(name, raising=False)
    engine = choose_engine("server")
    with pytest.raises(InputError, match="no address") as caught:
        engine.load_embedder(resolve_embedder("ume-tiny"), LoadOptions())
    assert "UME_EMBEDDER_URL" in caught.value.hint
    with pytest.raises(InputError, match="no address"):
        engine.load_reasoner(resolve_reasoner("ume-tiny"), LoadOptions())


def test_a_command_reaches_the_server_that_the_environment_names(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UME_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UME_REASONER_URL", stub.url)
    monkeypatch.setenv("UME_EMBEDDER_URL", stub.url)
    monkeypatch.setenv("UME_API_KEY", KEY)
    (tmp_path / "note.txt").write_text("a red circle")
    stub.answer = lambda path, body: reply(embedding(1.0, 0.0))
    asked = ["index", str(tmp_path / "note.txt"), "--store", str(tmp_path / "store"), "--engine", "server", "--json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["indexed"] == 1
    assert any("a red circle" in json.dumps(body) for body in stub.posted())
    assert KEY not in done.output
    stub.answer = lambda path, body: reply({"error": f"no such key: {KEY}"}, 401)
    refused = CliRunner().invoke(app, asked)
    assert refused.exit_code != 0
    assert "401" in refused.output
    assert KEY not in refused.output
