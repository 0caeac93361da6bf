"""A recipe's stages are done once, gone on with when stopped, and run again when what they are made from changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from contrastive_world import write_start
from shapes_pairs import write_shapes_pairs

from ume_retrieval import InputError, ReasoningEmbedder, VisualBudget
from ume_retrieval.errors import TrainingError
from ume_training.contrastive.run import read_facts
from ume_training.data.append_log import RecordLog
from ume_training.data.files import PairReader
from ume_training.data.validation import PairError
from ume_training.egrl import EgrlSettings
from ume_training.export import render_card
from ume_training.recipes.context import StageContext, Workers
from ume_training.recipes.export_stage import card_of
from ume_training.recipes.inputs import fingerprint_of
from ume_training.recipes.run import StageReport, run_recipe
from ume_training.recipes.schema import Recipe, load_recipe, parse_recipe
from ume_training.recipes.sources import open_sources, select_hard, select_readable
from ume_training.recipes.stage_state import (
    REPLACED,
    STAMP,
    StageState,
    differences,
    digest_path,
    read_state,
    write_state,
)
from ume_training.recipes.stages import EgrlStage, ExportStage

TASKS = ("text_to_image", "image_to_text")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """40 pairs in two data sets; the T-CoTs of every other query are those of another pair."""
    path = write_shapes_pairs(tmp_path / "world", tasks=TASKS, level="default", group_size=2, count=20, traces="true")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row, other in zip(rows[:18:2], rows[2:20:2], strict=True):
        row["query_tcot"] = other["query_tcot"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def two_filters(pairs: Path, *, first: str = "words:0.5", second: str = "words:0.9") -> Recipe:
    text = f"""\
name: twice
description: two judges, one after the other
data: {{pairs: ['{pairs}']}}
stages:
  - {{stage: filter, name: mild, data: data, judge: '{first}'}}
  - {{stage: filter, name: strict, data: 'stage:mild', judge: '{second}'}}
"""
    return parse_recipe(text, "twice.yaml")


def hows(reports: tuple[StageReport, ...]) -> dict[str, str]:
    return {report.name: report.how for report in reports}


def test_a_second_run_does_nothing(pairs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = run_recipe(two_filters(pairs), run)
    assert hows(first) == {"mild": "start", "strict": "start"}
    kept = first[0].outputs[""]
    assert first[0].figures["kept"] + first[0].figures["rejected"] == 40
    assert sum(1 for _ in PairReader(kept)) == first[0].figures["kept"]
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    second = run_recipe(two_filters(pairs), run)
    assert hows(second) == {"mild": "skip", "strict": "skip"}
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before
    assert [report.figures for report in second] == [report.figures for report in first]


def test_a_changed_stage_and_what_it_feeds_are_run_again(pairs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    old = run_recipe(two_filters(pairs), run)[0].outputs[""].read_text()
    reports = run_recipe(two_filters(pairs, first="words:0.95"), run)
    assert hows(reports) == {"mild": "again", "strict": "again"}
    assert "settings.judge: words:0.5 -> words:0.95" in reports[0].why
    assert "stage:mild" in reports[1].why
    # Nothing is lost, nothing is mixed.
    (kept,) = (run / REPLACED).glob("mild-*/kept.jsonl")
    assert kept.read_text() == old != reports[0].outputs[""].read_text()
    assert hows(run_recipe(two_filters(pairs, first="words:0.95"), run)) == {"mild": "skip", "strict": "skip"}


def test_only_what_depends_on_a_change_is_run_again(pairs: Path, tmp_path: Path) -> None:
    run_recipe(two_filters(pairs), tmp_path / "run")
    reports = run_recipe(two_filters(pairs, second="words:0.8"), tmp_path / "run")
    assert hows(reports) == {"mild": "skip", "strict": "again"}


def test_changed_data_are_noticed(pairs: Path, tmp_path: Path) -> None:
    run_recipe(two_filters(pairs), tmp_path / "run")
    lines = pairs.read_text().splitlines(keepends=True)
    pairs.write_text("".join(lines[:-1]))
    reports = run_recipe(two_filters(pairs), tmp_path / "run")
    assert reports[0].how == "again"
    assert str(pairs) in reports[0].why


def test_a_result_that_was_changed_by_hand_is_made_again(pairs: Path, tmp_path: Path) -> None:
    first = run_recipe(two_filters(pairs), tmp_path / "run")[0].outputs[""]
    with first.open("a") as file:
        file.write("\n")
    reports = run_recipe(two_filters(pairs), tmp_path / "run")
    assert hows(reports)["mild"] == "again"
    assert "was changed" in reports[0].why


def test_a_stopped_stage_goes_on(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_recipe(two_filters(pairs), tmp_path / "whole")
    append, calls = RecordLog.append, iter(range(99))

    def stop_at_the_third(self: RecordLog, records: Any) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt
        append(self, records)

    with monkeypatch.context() as patch:
        patch.setattr(RecordLog, "append", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(two_filters(pairs), tmp_path / "run")
    stamp = read_state(tmp_path / "run" / "mild")
    assert stamp is not None
    assert stamp.state == "started"
    reports = run_recipe(two_filters(pairs), tmp_path / "run")
    assert hows(reports) == {"mild": "resume", "strict": "start"}
    for one, other in zip(whole, reports, strict=True):
        assert one.outputs[""].read_text() == other.outputs[""].read_text()


def test_until_runs_so_far_and_no_further(pairs: Path, tmp_path: Path) -> None:
    assert hows(run_recipe(two_filters(pairs), tmp_path / "run", until="mild")) == {"mild": "start"}
    assert not (tmp_path / "run" / "strict").exists()
    with pytest.raises(InputError) as caught:
        run_recipe(two_filters(pairs), tmp_path / "run", until="mildest")
    assert "mild, strict" in caught.value.hint


def test_a_folder_of_something_else_is_refused(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "mild").mkdir(parents=True)
    (tmp_path / "run" / "mild" / "letters.txt").write_text("keep me")
    with pytest.raises(InputError, match=r"no stage\.json"):
        run_recipe(two_filters(pairs), tmp_path / "run")
    (tmp_path / "run" / "mild" / STAMP).write_text("{")
    with pytest.raises(InputError, match="cannot be understood"):
        run_recipe(two_filters(pairs), tmp_path / "run")
    assert (tmp_path / "run" / "mild" / "letters.txt").read_text() == "keep me"


def test_two_runs_do_not_share_a_folder(pairs: Path, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    run_recipe(two_filters(pairs), tmp_path / "run")
    with (tmp_path / "run" / ".lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run works"):
            run_recipe(two_filters(pairs), tmp_path / "run")
    assert hows(run_recipe(two_filters(pairs), tmp_path / "run")) == {"mild": "skip", "strict": "skip"}


def test_a_run_folder_may_move(pairs: Path, tmp_path: Path) -> None:
    run_recipe(two_filters(pairs), tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert hows(run_recipe(two_filters(pairs), tmp_path / "there")) == {"mild": "skip", "strict": "skip"}


def test_a_print_follows_every_byte(tmp_path: Path) -> None:
    inner = tmp_path / "model" / "1_Pooling"
    inner.mkdir(parents=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    (inner / "config.json").write_text("{}")
    before = digest_path(tmp_path / "model")
    (inner / "config.json").write_text("[]")
    assert digest_path(tmp_path / "model") != before


def test_differences_are_told_by_key() -> None:
    assert differences({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}, "c": None}) == ["a.b.1: 2 -> 3", "c: nothing -> None"]
    assert differences({"a": 1}, {"a": 1}) == []


def test_hard_pairs_are_found_once(tmp_path: Path) -> None:
    recipe = parse_recipe(
        """\
name: hard
description: pairs that the bundled Reasoner gets wrong
data: {shapes: {level: questions, pairs: 4, group_size: 4}}
stages:
  - {stage: egrl, choose: hard, settings: {reasoner: ume-tiny, embedder: ume-tiny, discriminator: words}}
""",
        "hard.yaml",
    )
    from ume_training.shapes.pair.architecture import BUDGET

    stage = recipe.stages[0]
    assert isinstance(stage, EgrlStage)
    work = work_in(tmp_path, recipe)
    sources = [one for one in open_sources("data", recipe, BUDGET)[0] if one.name == "shapes/grounding"]
    (tmp_path / "hard.json").write_text(json.dumps({"shapes/grounding": [2, 3]}))
    (chosen,) = select_hard(sources, stage.settings, work)
    assert len(chosen) == 2
    assert chosen.group(0) == sources[0].group(2)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # trl still asks by the old name
def test_the_short_recipe_runs_from_nothing_to_a_pair_that_loads(tmp_path: Path) -> None:
    recipe = load_recipe("shapes-test")
    reports = run_recipe(recipe, tmp_path / "run", out=tmp_path / "pair", until=None)
    assert {report.how for report in reports} == {"start"}
    assert [report.name for report in reports][-1] == "export"
    scores = json.loads((tmp_path / "run" / "score" / "scores.json").read_text())
    assert 0 <= scores["reasoned"]["hit@1"] <= 1
    for role in ("reasoner", "embedder"):
        card = (tmp_path / "pair" / role / "README.md").read_text()
        assert "shapes-test" in card
        assert f"{scores['reasoned']['hit@1']}" in card
    embedder = ReasoningEmbedder.from_pretrained(str(tmp_path / "pair"), reasoner=None)
    assert embedder.encode_query("red circle", reasoning="never").shape == (32,)
    assert {report.how for report in run_recipe(recipe, tmp_path / "run", out=tmp_path / "pair")} == {"skip"}


def work_in(folder: Path, recipe: Recipe) -> StageContext:
    return StageContext(recipe, folder, folder, Workers(main=True, count=1, waiting=None))


def test_without_look_alikes_hard_ones_are_not_looked_for(tmp_path: Path) -> None:
    rows = ({"id": str(i), "dataset": "d", "query": {"text": "q"}, "positive": {"text": "p"}} for i in range(4))
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = two_filters(tmp_path / "pairs.jsonl")
    sources, _ = open_sources("data", recipe, VisualBudget())
    with pytest.raises(TrainingError, match="no two pairs share a group"):
        select_hard(sources, EgrlSettings(reasoner="nobody/has-this"), work_in(tmp_path, recipe))


def broken(pairs: Path) -> Path:
    """Two lines are broken, one is of a picture that does not decode, and one has a malformed T-CoT."""
    lines = pairs.read_text().splitlines()
    (pairs.parent / "torn.png").write_bytes(b"torn")
    row = json.loads(lines[0])
    lines[1] = '{"id": '
    lines[2] = json.dumps({**row, "id": "gone", "query": {"images": ["gone.png"]}})
    lines[3] = json.dumps({**row, "id": "torn", "query": {"images": ["torn.png"]}, "query_tcot": None})
    lines[4] = json.dumps({**row, "id": "odd", "query_tcot": "<answer>red</answer>"})
    pairs.write_text("\n".join(lines) + "\n")
    return pairs


def named(folder: Path) -> list[str]:
    rows = (json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines())
    return [row["source"].rpartition(":")[2] for row in rows]


def test_stages_name_what_they_leave_out(pairs: Path, tmp_path: Path) -> None:
    text = f"""\
name: names
description: broken lines
data:
  pairs: ['{broken(pairs)}']
  weights: {{shapes/image_to_text: 2}}
stages:
  - {{stage: filter, data: data, judge: words}}
  - stage: contrastive
    settings: {{embedder: '{write_start(tmp_path / "start")}', batch: 4, sub_batch: 4, steps: 1, workers: 0}}
"""
    first, second = run_recipe(parse_recipe(text, "names.yaml"), tmp_path / "run")
    assert named(tmp_path / "run" / "filter") == ["2"]
    assert first.figures["left_out"] == 1
    assert named(tmp_path / "run" / "contrastive") == ["2", "3", "5"]
    assert 3 <= second.figures["left_out"] <= 4  # the one step may meet the torn picture
    assert read_facts(tmp_path / "run" / "contrastive" / "run").weights == {"shapes/image_to_text": 2}


def test_a_stage_that_is_to_stop_stops(pairs: Path, tmp_path: Path) -> None:
    settings = "{embedder: ume-tiny, batch: 4, sub_batch: 4, steps: 1, on_error: stop}"
    text = f"""\
name: stops
description: a broken line
data: {{pairs: ['{broken(pairs)}']}}
stages:
  - {{stage: contrastive, settings: {settings}}}
"""
    with pytest.raises(PairError, match="line 2"):
        run_recipe(parse_recipe(text, "stops.yaml"), tmp_path / "run")


def test_egrl_reads_no_traces_and_names_all_that_is_left_out(pairs: Path, tmp_path: Path) -> None:
    recipe = two_filters(broken(pairs))
    sources, failures = open_sources("data", recipe, VisualBudget(), rule="any")
    assert sum(map(len, sources)) == 38
    assert sum(map(len, select_readable(sources, failures, work_in(tmp_path, recipe)))) == 37
    assert named(tmp_path) == ["2", "3", "4"]


def test_weights_concern_who_draws_by_them(pairs: Path) -> None:
    recipe = load_recipe("embed-rl-2b")
    data = recipe.data.model_copy(update={"pairs": (str(pairs),), "weights": {"a": 2.0}})
    weighed, plain = (
        recipe.model_copy(update={"data": one}) for one in (data, data.model_copy(update={"weights": {}}))
    )
    made = {stage.name: StageState("done", {}, fingerprints={"": "x", "rejected": "y"}) for stage in recipe.stages}
    changed = {
        stage.name: differences(fingerprint_of(stage, stage, plain, made), fingerprint_of(stage, stage, weighed, made))
        for stage in recipe.stages
        if not isinstance(stage, ExportStage)
    }
    assert {name for name, what in changed.items() if what} == {"contrastive"}
    assert changed["contrastive"] == ["weights.a: nothing -> 2.0"]


def test_a_card_says_what_was_done_and_not_where(tmp_path: Path) -> None:
    settings = EgrlSettings(generation="vllm-server", server="http://me:hunter2@gpu.internal:8000")
    recipe = load_recipe("embed-rl-2b")
    stage = EgrlStage(stage="egrl", name="egrl", settings=settings)
    write_state(StageState("done", {}, figures={"steps": 3}), tmp_path / "egrl")
    text = render_card(
        card_of("reasoner", "stage:egrl", None, work_in(tmp_path, recipe.model_copy(update={"stages": (stage,)})))
    )
    assert "vllm-server" in text
    assert "hunter2" not in text
    assert "vllm_memory" not in text


def test_a_state_of_the_last_release_is_compared_by_its_new_keys(tmp_path: Path) -> None:
    (tmp_path / "stage.json").write_text(
        '{"state": "done", "basis": {"settings": {"kin": 2, "apart": {"steps": 1}, "leak_share": 0.5}, "seed": 0}}'
    )
    state = read_state(tmp_path)
    assert state is not None
    settings = {"group_size": 2, "warm_start": {"steps": 1}, "answer_hint_prob": 0.5}
    assert differences(state.basis, {"settings": settings, "seed": 0}) == []
