"""The tables of tasks, and published scores beside a run."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

import pytest

from ume_eval import (
    MixedVersions,
    ModeScore,
    RunResult,
    TaskResult,
    VisDoc,
    all_tasks,
    choose,
    comparable_scores,
    group_means,
    published,
)
from ume_eval.layouts import READERS
from ume_eval.published import check_versions
from ume_eval.tasks import MMEB_GROUPS, UVRB_GROUPS
from ume_retrieval import InputError


def test_groups_have_the_published_sizes() -> None:
    sizes = {name: mean.of for name, mean in group_means("mmeb-v2", dict.fromkeys(names("mmeb-v2"), 1.0)).items()}
    assert sizes == {
        "image CLS": 10,
        "image QA": 10,
        "image RET": 12,
        "image GD": 4,
        "image": 36,
        "video CLS": 5,
        "video QA": 5,
        "video RET": 5,
        "video MRET": 3,
        "video": 18,
        "visdoc VDRv1": 10,
        "visdoc VDRv2": 4,
        "visdoc VR": 6,
        "visdoc OOD": 4,
        "visdoc": 24,
        "all": 78,
    }
    sizes = {name: mean.of for name, mean in group_means("uvrb", dict.fromkeys(names("uvrb"), 1.0)).items()}
    assert sizes == {
        "TXT": 12,
        "CMP": 2,
        "VIS": 2,
        "CG": 3,
        "FG": 7,
        "LC": 2,
        "S": 2,
        "T": 2,
        "PR": 3,
        "all": 16,
        "AVG": 6,
    }


def names(benchmark: str) -> list[str]:
    return [task.name for task in all_tasks(benchmark)]  # type: ignore[arg-type]


def test_every_task_has_a_reader_and_a_known_metric() -> None:
    for task in (*all_tasks("mmeb-v2"), *all_tasks("uvrb")):
        assert task.layout in READERS
        assert task.metric in {"hit@1", "hit@10", "ndcg@5"}
        assert (task.metric == "ndcg@5") == task.groups[0].startswith("visdoc")
    assert {task.name for task in all_tasks("uvrb") if task.metric == "hit@10"} == {"CMRB", "LoVR-TH"}
    assert len({task.name for task in all_tasks("mmeb-v2")}) == 78


def test_only_two_tasks_moved() -> None:
    now, before = all_tasks("mmeb-v2"), all_tasks("mmeb-v2", "original")
    moved = [a.name for a, b in zip(now, before, strict=True) if a != b]
    assert moved == ["ViDoSeek-page", "MMLongBench-page"]


@pytest.mark.parametrize(
    ("wish", "count"), [("image", 36), ("video qa", 5), ("ViDoRe_*", 14), ("cirr", 1), ("visdoc OOD", 4)]
)
def test_tasks_by_wish(wish: str, count: int) -> None:
    assert len(choose("mmeb-v2", [wish])) == count
    with pytest.raises(InputError):
        choose("mmeb-v2", [wish, "nothing"])


@pytest.mark.parametrize(
    ("model", "groups"),
    [
        # arXiv 2602.13823v3, table 1
        ("Embed-RL-2B", {"image": 69.2, "video": 52.1, "visdoc": 74.1, "all": 66.8}),
        ("Embed-RL-4B", {"image": 71.2, "video": 53.0, "visdoc": 74.7, "all": 68.1}),
    ],
)
def test_released_scores_give_the_paper_s_table(model: str, groups: dict[str, float]) -> None:
    [one] = [one for one in published("mmeb-v2") if one.model == model]
    assert len(one.tasks) == 78
    means = one.means()
    assert {name: round(means[name].value, 1) for name in groups} == groups


def test_uvrb_s_average_is_over_abilities() -> None:
    """arXiv 2510.27571, table 1 gives table 2 in no other way than this."""
    printed = {
        "GVE-7B": (60.0, 65.7, 31.2, 65.7, 58.7, 57.0, 81.4, 82.1, 46.9, 41.9),
        "GVE-3B": (57.1, 61.9, 30.4, 64.7, 55.2, 54.1, 76.4, 81.6, 43.0, 37.7),
        "GME-7B": (56.2, 60.4, 34.1, 61.5, 51.8, 50.7, 78.8, 74.9, 37.3, 39.8),
        "Unite-7B": (55.9, 60.9, 25.4, 66.6, 54.1, 53.9, 74.6, 77.9, 41.2, 42.5),
    }
    by_name = {one.model: one.means() for one in published("uvrb")}
    for model, values in printed.items():
        means = [by_name[model][name].value for name in ("AVG", *UVRB_GROUPS)]
        assert means == pytest.approx(values, abs=0.11), model
    assert by_name["GVE-7B"]["all"].value == pytest.approx(57.3, abs=0.06)


def test_embed_rl_s_paper_prints_flat_means_of_uvrb() -> None:
    """arXiv 2602.13823, table 13: TXT, CG, FG, LC of the 2B model beside UVRB's rows, which are means of means."""
    [one] = [one for one in published("uvrb") if one.model == "Embed-RL-2B"]
    flat = {
        group: sum(one.tasks[task.name] for task in choose("uvrb", [group])) / len(choose("uvrb", [group]))
        for group in ("TXT", "CG", "FG", "LC")
    }
    assert flat == pytest.approx({"TXT": 61.1, "CG": 59.1, "FG": 54.6, "LC": 86.9}, abs=0.06)
    means = one.means()
    assert (round(means["FG"].value, 1), round(means["TXT"].value, 1)) == (56.9, 67.6)
    assert round(means["AVG"].value, 1) == 60.2
    assert "all" in means
    assert means["all"].ran == 14


def test_the_two_versions_differ_where_they_should() -> None:
    models: dict[str, dict[VisDoc | None, dict[str, float]]] = {}
    for one in published("mmeb-v2"):
        models.setdefault(one.model, {})[one.visdoc] = dict(one.tasks)
    both = [versions for versions in models.values() if len(versions) == 2 and all(versions.values())]
    assert len(both) == 6
    for versions in both:
        assert versions["page-fixed"]["ViDoSeek-page"] > versions["original"]["ViDoSeek-page"] + 20


def test_published_scores_are_percent_with_a_source() -> None:
    data = json.loads(files("ume_eval").joinpath("data", "published.json").read_text(encoding="utf-8"))
    for one in data["scores"]:
        assert one["source"].startswith(("github ", "arXiv "))
        assert set(one.get("tasks", {})) <= set(names(one["benchmark"]))
        assert all(0 < value <= 100 for value in (*one.get("tasks", {}).values(), *one.get("groups", {}).values()))
        assert ("visdoc" in one) == (one["benchmark"] == "mmeb-v2")
    keys = [(one["model"], one["benchmark"], one.get("visdoc")) for one in data["scores"]]
    assert len(keys) == len(set(keys))


def test_versions_are_not_mixed() -> None:
    pages, pictures = choose("mmeb-v2", ["visdoc OOD"], "original"), choose("mmeb-v2", ["image"], "original")
    with pytest.raises(MixedVersions) as refused:
        comparable_scores(pages, "original", ["Embed-RL-2B"])
    assert refused.value.code == "mixed_versions"
    assert "--visdoc page-fixed" in refused.value.hint
    assert comparable_scores(pages, "original") == (), "nothing that may stand there by default"
    assert [one.visdoc for one in comparable_scores(pages, "original", ["gme-7b"])] == ["original"]
    assert [one.visdoc for one in comparable_scores(pages, "page-fixed", ["gme-7b"])] == ["page-fixed"]
    assert [one.model for one in comparable_scores(pictures, "original")] == ["Embed-RL-2B", "Embed-RL-4B"], (
        "no page is in it"
    )
    with pytest.raises(MixedVersions):
        check_versions(pages, "page-fixed", next(one for one in published("mmeb-v2") if one.visdoc == "original"))
    with pytest.raises(InputError, match="no published scores"):
        comparable_scores(pages, models=["GPT"])


def test_means_over_a_part_meet_the_same_part() -> None:
    [one] = [one for one in published("mmeb-v2") if one.model == "Embed-RL-2B"]
    part = one.means(["CIRR", "EDIS"])
    assert part["image RET"].value == pytest.approx((one.tasks["CIRR"] + one.tasks["EDIS"]) / 2)
    assert (part["image RET"].ran, part["image RET"].of) == (2, 12)
    [printed] = [one for one in published("mmeb-v2") if one.model == "Qwen3-VL-Embedding-8B"]
    assert printed.means()["all"].value == 77.8
    assert printed.means(["CIRR"]) == {}, "printed means say nothing of a part"


def test_uvrb_s_average_needs_every_ability() -> None:
    assert "AVG" not in group_means("uvrb", dict.fromkeys(names("uvrb")[:-1], 50.0))


def test_modes_are_those_that_every_task_has() -> None:
    score = ModeScore(50.0, {"hit@1": 50.0}, None, 0)
    one = TaskResult("CIRR", ("image RET",), "hit@1", 2, 2, {"direct": score, "reasoned": score})
    other = replace(one, name="EDIS", modes={"direct": score})
    result = RunResult("mmeb-v2", "page-fixed", "e@1", None, (one, other))
    assert result.modes == ("direct",)
    assert result.scores("reasoned") == {"CIRR": 50.0}
    assert result.to_dict()["groups"]["direct"]["image RET"] == {"value": 50.0, "ran": 2, "of": 12}
    assert set(MMEB_GROUPS) == {"image", "video", "visdoc"}
