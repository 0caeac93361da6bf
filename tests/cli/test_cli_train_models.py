"""`ume train contrastive | egrl | export` on annotated Shapes pairs with the bundled pair, as a person runs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from train_cli import run, run_json

from ume_retrieval import ReasoningEmbedder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("train-models")


@pytest.fixture(autouse=True)
def own_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UME_CACHE_DIR", str(home / "cache"))


@pytest.fixture(scope="module")
def pairs(home: Path) -> Path:
    """Annotated pairs, one line of them no pair, one picture torn."""
    world, out = home / "world" / "pairs.jsonl", home / "world" / "annotated.jsonl"
    shapes = ("--task", "text_to_image", "--count", "8", "--kin", "2", "--level", "questions")
    assert run_json("convert", "shapes", world, *shapes)["pairs"] == 8
    assert run_json("annotate", world, out, "--cache", home / "t.sqlite3")["annotated"] == 8
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    (out.parent / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing")
    torn = {**rows[0], "id": "torn", "positive": {"images": ["torn.png"]}}
    out.write_text("".join(json.dumps(row) + "\n" for row in (*rows, torn)) + "{oops\n")
    return out


def test_a_pair_is_trained_and_exported(home: Path, pairs: Path) -> None:
    settings = home / "settings.yaml"
    settings.write_text("lora: {r: 2, alpha: 4}\nbatch: 4\nsub_batch: 4\nmini_batch: 4\nwarmup_steps: 1\n")
    vectors = run_json(
        "contrastive", pairs, home / "vectors", "--settings", settings, "--embedder", "ume-tiny", "--steps", "2",
        "--on-error", "skip", "--workers", "0",
    )  # fmt: skip
    assert vectors["steps"] == 2
    assert [failure["source"] for failure in vectors["failures"]] == [f"{pairs}:10"]
    words = ("--discriminator", "words", "--rollouts", "2", "--pairs-a-step", "2", "--micro-batch", "4")
    egrl = home / "egrl.yaml"
    egrl.write_text("embedder: ume-tiny\nmax_tokens: 100\nwatch: {sampled_replies: 4}\nlora: {r: 2, alpha: 4}\n")
    traces = run_json(
        "egrl", pairs, home / "traces", "--settings", egrl, "--reasoner", "ume-tiny", "--steps", "1", *words,
        "--on-error", "skip",
    )  # fmt: skip
    assert traces["steps"] == 1
    assert [failure["source"] for failure in traces["failures"]] == [f"{pairs}:10", f"{pairs}:9"]
    assert json.loads(Path(traces["log"]).read_text())["seconds"] > 0
    assert list(Path(traces["rollouts"]).glob("*.md"))
    made = home / "made"
    assert run_json("export", home / "vectors", made / "embedder")["role"] == "embedder"
    assert run_json("export", home / "traces", made / "reasoner")["role"] == "reasoner"
    assert "step" in (made / "embedder" / "README.md").read_text()
    result = ReasoningEmbedder.from_pretrained(made, cache=None).encode_query("red circle", return_traces=True)
    assert np.isfinite(result.vectors).all()


def test_what_is_wrong_is_said_in_a_line(home: Path, pairs: Path) -> None:
    for command in ("contrastive", "egrl"):
        stopped = run(command, pairs, home / "stopped", "--embedder", "ume-tiny", "--on-error", "stop")
        assert stopped.exit_code != 0
        assert "line 10: is not JSON" in stopped.stderr
        wrong = home / "wrong.yaml"
        wrong.write_text("learning_rate: -1\n")
        refused = run(command, pairs, home / "refused", "--embedder", "ume-tiny", "--settings", wrong)
        assert refused.exit_code != 0
        assert "learning_rate: Input should be greater than 0" in refused.stderr
        wrong.write_text("speed: [1\n")
        assert "wrong.yaml" in run(command, pairs, home / "refused", "--settings", wrong).stderr
    assert not (home / "refused").exists()
