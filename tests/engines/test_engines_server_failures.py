"""What a server does wrong, by a stub on this machine behind the real HTTP client: each ends in a retry or an error."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ume_retrieval.cache import trace_key
from ume_retrieval.chat import Chat, ImagePart, Message, TextPart, VideoPart
from ume_retrieval.checkpoint import EmbedderSpec, ModelInfo, ReasonerSpec
from ume_retrieval.cli.app import app
from ume_retrieval.embedder.base import Embedder
from ume_retrieval.embedder.server import ServerEmbedder
from ume_retrieval.engines import LoadOptions, choose_engine
from ume_retrieval.errors import IncompatibleModel, InputError, ServerError, SomeFailed, UmeError
from ume_retrieval.inputs import Frames
from ume_retrieval.pipeline import ReasoningEmbedder
from ume_retrieval.reasoner.base import Reasoner, Sampling
from ume_retrieval.reasoner.seeds import chat_seeds
from ume_retrieval.reasoner.server import ServerReasoner
from ume_retrieval.registry import resolve_embedder, resolve_reasoner
from ume_retrieval.server.client import Server
from ume_retrieval.server.options import ServerOptions, base_url
from ume_retrieval.server.retry import Backoff, Busy, retry_after
from ume_retrieval.tcot.grammar import render
from ume_retrieval.tcot.pattern import pattern
from ume_retrieval.tcot.trace import TCot
from ume_retrieval.testing import PLAIN_PROMPTS, SMALL_BUDGET, HashEmbedder

KEY = "s3cr3t-k3y"
SPEC = ReasonerSpec(prompts=PLAIN_PROMPTS, budget=SMALL_BUDGET, max_tokens=64)
EMBED_RL = EmbedderSpec(family="embed-rl", budget=SMALL_BUDGET)
INFO = ModelInfo("stub", "1", "server")
GREEDY = Sampling(max_tokens=8)

Reply = tuple[int, bytes, dict[str, str]]
Answer = Callable[[str, dict[str, Any]], Reply | None]


def reply(data: object, status: int = 200, **headers: str) -> Reply:
    return status, json.dumps(data).encode(), {name.replace("_", "-"): value for name, value in headers.items()}


def completion(text: str, finish: str = "stop") -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}


def embedding(*values: float) -> dict[str, Any]:
    packed = base64.b64encode(np.array(values, dtype="<f4").tobytes()).decode()
    return {"data": [{"embedding": packed}], "usage": {"prompt_tokens": 3}}


@dataclass
class Stub:
    """A server that is not there in truth: what it answers to a path and a body is the test's."""

    url: str = ""
    owner: str = "vllm"
    answer: Answer = field(default=lambda path, body: reply(completion("fine")))
    seen: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def posted(self) -> list[dict[str, Any]]:
        return [body for path, body, _ in self.seen if path != "/v1/models"]


@pytest.fixture
def stub() -> Iterator[Stub]:
    state = Stub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.respond({})

        def do_POST(self) -> None:
            self.respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def respond(self, body: dict[str, Any]) -> None:
            with state.lock:
                state.seen.append((self.path, body, dict(self.headers)))
                state.busy += 1
                state.busiest = max(state.busiest, state.busy)
            try:
                answered = state.answer(self.path, body)
                if self.path == "/v1/models" and (answered is None or answered[0] == 200):
                    answered = reply({"data": [{"id": "one", "owned_by": state.owner}]})
            finally:
                with state.lock:
                    state.busy -= 1
            if answered is None:  # the connection is lost without an answer
                return
            status, content, headers = answered
            try:
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(content))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client has given up

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def naps() -> list[float]:
    return []


def connect(stub: Stub, naps: list[float], **options: Any) -> Server:
    chosen = ServerOptions(**{"api_key": KEY, "attempts": 4, "timeout_s": 5.0, **options})
    backoff = Backoff(chosen.attempts, sleep=naps.append, uniform=lambda: 1.0)
    return Server(f"{stub.url}/v1", None, chosen, backoff=backoff)


def reasoner_on(stub: Stub, naps: list[float], **options: Any) -> ServerReasoner:
    return ServerReasoner(connect(stub, naps, **options), info=INFO, spec=SPEC)


def words(text: str) -> Chat:
    return (Message("user", (TextPart(text),)),)


def said(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"][-1]["text"])


def clip(*times: float) -> Frames:
    return Frames(tuple(PIL.Image.new("RGB", (32, 32), (n * 40, 0, 0)) for n in range(len(times))), times, 4.0)


# Trouble that passes is waited for.


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(stub: Stub, naps: list[float], status: int) -> None:
    reasoner = reasoner_on(stub, naps)
    troubles = iter([status, status])
    stub.answer = lambda path, body: reply(completion("at last"), next(troubles, 200))
    assert [one.text for one in reasoner.generate([words("hi")], GREEDY)] == ["at last"]
    assert naps == [0.5, 1.0]
    assert len(stub.posted()) == 3


def test_a_lost_connection_is_asked_again(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    answers = iter([None, reply(completion("back"))])
    stub.answer = lambda path, body: next(answers)
    assert reasoner.generate([words("hi")], GREEDY)[0].text == "back"
    assert len(naps) == 1


@pytest.mark.parametrize(
    "half",
    [
        (200, b'{"choices": [{"mess', {}),
        (200, b'{"choices": [{"mess', {"Content-Length": "4000"}),
        (200, b"", {}),
        (200, b"<html>please log in</html>", {}),
        (200, b"[]", {}),
        (200, b"null", {}),
        (200, b'{"choices": []}', {}),
        (200, b'{"choices": [{"message": null, "finish_reason": "stop"}], "usage": {}}', {}),
        (200, b"\xff\xfe\x00", {}),
    ],
)
def test_half_an_answer_is_asked_for_again(stub: Stub, naps: list[float], half: Reply) -> None:
    reasoner = reasoner_on(stub, naps)
    answers = iter([half, reply(completion("whole"))])
    stub.answer = lambda path, body: next(answers)
    assert reasoner.generate([words("hi")], GREEDY)[0].text == "whole"
    assert len(naps) == 1


def test_half_answers_for_ever_are_a_typed_error(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    stub.answer = lambda path, body: (200, b'{"choices": [{"mess', {})
    with pytest.raises(ServerError, match=r"half an answer \(4 attempts\)") as caught:
        reasoner.generate([words("hi")], GREEDY)
    assert caught.value.retryable
    assert naps == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("values", [(), (0.0, 0.0), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_what_is_no_vector_is_a_typed_error(stub: Stub, naps: list[float], values: tuple[float, ...]) -> None:
    stub.answer = lambda path, body: reply(embedding(*values))
    with pytest.raises(ServerError, match="half an answer"):
        ServerEmbedder(connect(stub, naps, attempts=1), info=INFO, spec=EMBED_RL)


def test_silence_is_a_typed_error_in_time(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps, timeout_s=0.2, attempts=2)
    release = threading.Event()
    stub.answer = lambda path, body: reply(completion("late")) if release.wait(20) else None
    start = time.perf_counter()
    with pytest.raises(ServerError, match=r"silent for too long \(2 attempts\)") as caught:
        reasoner.generate([words("hi")], GREEDY)
    release.set()
    assert caught.value.retryable
    assert time.perf_counter() - start < 10


def test_nobody_there_is_a_typed_error(naps: list[float]) -> None:
    with pytest.raises(ServerError, match="cannot be reached") as caught:
        Server("http://127.0.0.1:9/v1", None, ServerOptions(attempts=2), backoff=Backoff(2, sleep=naps.append))
    assert caught.value.retryable
    assert len(naps) == 1


@pytest.mark.parametrize(("header", "wait"), [("7", 7.0), ("900", 30.0), ("soon", 0.5), ("0", 0.5)])
def test_retry_after_is_kept_within_reason(stub: Stub, naps: list[float], header: str, wait: float) -> None:
    reasoner = reasoner_on(stub, naps)
    answers = iter([reply({}, 429, Retry_After=header), reply(completion("now"))])
    stub.answer = lambda path, body: next(answers)
    assert reasoner.generate([words("hi")], GREEDY)[0].text == "now"
    assert naps == [wait]


def test_retry_after_reads_dates() -> None:
    assert 55 < retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60


@given(st.text(max_size=40))
def test_retry_after_takes_any_text(header: str) -> None:
    assert retry_after(header) >= 0


@given(st.integers(1, 12), st.floats(0, 1, exclude_max=True), st.floats(0, 1e6))
def test_waits_grow_and_stay_bounded(attempts: int, luck: float, wanted: float) -> None:
    waits: list[float] = []

    def never() -> None:
        raise Busy("no", wait_s=wanted)

    with pytest.raises(ServerError):
        Backoff(attempts, sleep=waits.append, uniform=lambda: luck).call(never)
    assert len(waits) == attempts - 1
    assert waits == sorted(waits)
    assert all(min(wanted, 30.0) <= wait <= 30.0 for wait in waits)


# Trouble that stays is said at once.


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_said_at_once(stub: Stub, naps: list[float], status: int) -> None:
    stub.answer = lambda path, body: reply({"error": {"message": f"Incorrect API key provided: {KEY}"}}, status)
    with pytest.raises(ServerError, match="Incorrect API key provided") as caught:
        connect(stub, naps)
    assert "UME_API_KEY" in caught.value.hint
    assert not caught.value.retryable
    assert KEY not in caught.value.message
    assert (len(stub.seen), naps) == (1, [])


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_chat_is_an_input_error(stub: Stub, naps: list[float], status: int) -> None:
    reasoner = reasoner_on(stub, naps)
    stub.answer = lambda path, body: reply({"error": {"message": "4096 tokens,\nyours has 9000"}}, status)
    with pytest.raises(InputError, match="4096 tokens, yours has 9000"):
        reasoner.generate([words("hi")], GREEDY)
    assert naps == []


@pytest.mark.parametrize("status", [301, 404, 418])
def test_other_answers_are_typed_errors(stub: Stub, naps: list[float], status: int) -> None:
    reasoner = reasoner_on(stub, naps)
    stub.answer = lambda path, body: reply("no such thing", status, Location="http://elsewhere.invalid/")
    with pytest.raises(ServerError, match=str(status)):
        reasoner.generate([words("hi")], GREEDY)
    assert naps == []


def test_a_vllm_server_that_trusts_no_settings_is_told_how_to(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    stub.answer = lambda path, body: reply({"error": {"message": "Start with --trust-request-mm-kwargs"}}, 400)
    with pytest.raises(ServerError) as caught:
        reasoner.generate([words("hi")], GREEDY)
    assert "--trust-request-mm-kwargs" in caught.value.hint


def test_what_a_server_says_is_one_short_line(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    stub.answer = lambda path, body: (404, b"\x1b[31mred\nlines " * 500, {})
    with pytest.raises(ServerError) as caught:
        reasoner.generate([words("hi")], GREEDY)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


def test_the_model_has_to_be_served(stub: Stub) -> None:
    with pytest.raises(ServerError, match="does not serve two") as caught:
        Server(f"{stub.url}/v1", "two", ServerOptions())
    assert "one" in caught.value.hint


# One bad chat never loses the others, nor what they cost.


def test_a_failure_keeps_the_answers_to_the_others(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    stub.answer = lambda path, body: (
        reply({"error": "too long"}, 400) if said(body) == "bad" else reply(completion(said(body)))
    )
    with pytest.raises(SomeFailed, match="1 of 3 failed") as caught:
        reasoner.generate([words("a"), words("bad"), words("c")], GREEDY)
    first, refused, last = caught.value.outcomes
    assert (first.text, last.text) == ("a", "c")
    assert isinstance(refused, InputError)


def test_the_pipeline_names_the_bad_item_and_asks_for_each_once(stub: Stub, naps: list[float]) -> None:
    tcot = render(TCot("Seen.", "Yes.", "a thing", keywords=("thing",)))
    stub.answer = lambda path, body: (
        None
        if path == "/v1/models"
        else reply({"error": "too long"}, 400)
        if "bad" in said(body)
        else reply(completion(tcot))
    )
    pipeline = ReasoningEmbedder(HashEmbedder(), reasoner_on(stub, naps))
    items = ["a", "b", "bad", "c", "d"]
    result = pipeline.encode_corpus(items, return_traces=True, strict=False)
    assert [failure.index for failure in result.failures] == [2]
    assert result.failures[0].error == "invalid_input"
    assert np.isfinite(result.vectors).all(axis=1).tolist() == [True, True, False, True, True]
    assert sorted(said(body) for body in stub.posted()) == sorted(items)
    with pytest.raises(InputError, match="too long"):
        pipeline.encode_corpus(items)


def test_an_embedders_failure_keeps_the_rows_of_the_others(stub: Stub, naps: list[float]) -> None:
    stub.answer = lambda path, body: (
        None if path == "/v1/models" else reply({}, 400) if "bad" in json.dumps(body) else reply(embedding(3.0, 4.0))
    )
    embedder = ServerEmbedder(connect(stub, naps), info=INFO, spec=EMBED_RL)
    chats = [(*words(text), Message("assistant", (TextPart("<emb>"),))) for text in ("a", "bad")]
    with pytest.raises(SomeFailed) as caught:
        embedder.embed(chats)
    np.testing.assert_allclose(caught.value.outcomes[0], [0.6, 0.8], rtol=1e-6)
    assert isinstance(caught.value.outcomes[1], InputError)


# Order, and no more at a time than was asked for.


def test_answers_come_in_order_and_requests_stay_bounded(stub: Stub, naps: list[float]) -> None:
    def slow(path: str, body: dict[str, Any]) -> Reply:
        time.sleep(0.05 if said(body).endswith("0") else 0.01)
        return reply(completion(said(body)))

    reasoner = reasoner_on(stub, naps, concurrency=4)
    stub.answer = slow
    texts = [f"chat {number}" for number in range(24)]
    assert [one.text for one in reasoner.generate([words(text) for text in texts], GREEDY)] == texts
    assert 2 <= stub.busiest <= 4


def test_no_chats_ask_nothing(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    assert reasoner.generate([], GREEDY) == []
    assert stub.posted() == []


# What travels.


def test_requests_carry_pixels_times_and_form_to_vllm(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    chat: Chat = (Message("user", (ImagePart(PIL.Image.new("RGB", (40, 33), "red")), TextPart("hi"))),)
    moving: Chat = (Message("user", (VideoPart(clip(1.0, 2.5)), TextPart("hi"))),)
    sampling = Sampling(max_tokens=8, temperature=0.5, top_p=0.9, seed=3, form="tcot")
    reasoner.generate([chat], sampling)
    reasoner.generate([moving], sampling)
    still, video = stub.posted()
    assert isinstance(reasoner, Reasoner)
    assert still["model"] == "one"
    assert (still["max_tokens"], still["temperature"], still["top_p"]) == (8, 0.5, 0.9)
    assert still["seed"] == chat_seeds([chat], 3)[0]
    assert still["structured_outputs"] == {"regex": pattern("image")}
    assert still["mm_processor_kwargs"]["images_kwargs"] == {"do_resize": False}
    assert still["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert video["structured_outputs"] == {"regex": pattern("video", frames=2)}
    assert video["media_io_kwargs"]["video"]["frames_indices"] == [0, 1500]
    assert video["messages"][0]["content"][0]["video_url"]["url"].count(",") == 2


def test_a_plain_server_gets_standard_fields_and_frames_as_pictures(stub: Stub, naps: list[float]) -> None:
    stub.owner = "someone"
    reasoner = reasoner_on(stub, naps)
    reasoner.generate([(Message("user", (VideoPart(clip(1.0, 2.5)), TextPart("hi"))),)], GREEDY)
    (body,) = stub.posted()
    assert body.keys() == {"model", "messages", "max_tokens", "temperature", "top_p"}
    assert [part["type"] for part in body["messages"][0]["content"]] == ["text", "image_url"] * 2 + ["text"]
    assert body["messages"][0]["content"][2]["text"] == "<1.5 seconds>"
    assert reasoner.form == "free"
    with pytest.raises(InputError, match="form"):
        reasoner.generate([words("hi")], Sampling(form="tcot"))


def test_a_cut_reply_says_so(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    stub.answer = lambda path, body: reply(completion("cut", "length"))
    assert reasoner.generate([words("hi")], GREEDY)[0].finish == "length"


def test_two_videos_with_different_times_are_refused(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    videos: Chat = (Message("user", (VideoPart(clip(0.0, 1.0)), VideoPart(clip(0.0, 2.0)))),)
    with pytest.raises(InputError, match="one video"):
        reasoner.generate([videos], GREEDY)


def test_an_embedders_request_ends_where_it_is_pooled(stub: Stub, naps: list[float]) -> None:
    stub.answer = lambda path, body: reply(embedding(0.0, 2.0))
    embedder = ServerEmbedder(connect(stub, naps), info=INFO, spec=EMBED_RL)
    assert isinstance(embedder, Embedder)
    assert embedder.dimension == 2
    (probe,) = stub.posted()
    assert (probe["continue_final_message"], probe["add_generation_prompt"]) == (True, False)
    assert probe["messages"][-1] == {"role": "assistant", "content": [{"type": "text", "text": "<emb>"}]}
    with pytest.raises(IncompatibleModel, match="<emb>"):
        embedder.embed([words("no place to pool")])
    qwen = EMBED_RL.model_copy(update={"family": "qwen3-vl-embedding"})
    ServerEmbedder(connect(stub, naps), info=INFO, spec=qwen)
    assert (stub.posted()[-1]["continue_final_message"], stub.posted()[-1]["add_generation_prompt"]) == (False, True)
    assert embedder.embed([]).vectors.shape == (0, 2)


def test_a_family_that_pools_elsewhere_is_refused(stub: Stub, naps: list[float]) -> None:
    with pytest.raises(IncompatibleModel, match="last token"):
        ServerEmbedder(connect(stub, naps), info=INFO, spec=EmbedderSpec(family="sentence-transformers"))


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
    "address", ["http://user:pass@host/", "http://host/?key=pass", "ftp://host", "host:80", "http://["]
)
def test_an_address_that_carries_a_secret_or_is_none_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(InputError) as caught:
        base_url(address, "UME_REASONER_URL")
    assert "pass" not in caught.value.message.replace("password", "")


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
