"""Small data sets in the published layouts, made of Shapes: every task of MMEB-V2 and UVRB, a few rows each."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ume_eval import Task, all_tasks
from ume_eval.layouts.documents import short_name
from ume_retrieval import ReasoningEmbedder, TraceCache
from ume_retrieval.testing import fake_embedder
from ume_training.shapes.draw import draw_clip, draw_page, draw_scene, write_clip
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.world import sample_clip, sample_page, sample_scene

LEVEL = LEVELS["default"]
QUERIES = 3
THINGS = 5
"""Different scenes, pages and clips that there are; the first `QUERIES` are asked for."""

Rows = list[dict[str, Any]]


class World:
    """Scenes, pages and clips as files, from which data sets are linked together."""

    def __init__(self, folder: Path, seed: int = 5) -> None:
        rng = random.Random(seed)
        self.store = folder / "things"
        self.store.mkdir(parents=True)
        self.scenes = [sample_scene(rng, LEVEL) for _ in range(THINGS)]
        self.pages = [sample_page(rng, LEVEL) for _ in range(THINGS)]
        self.clips = [sample_clip(rng, LEVEL) for _ in range(THINGS)]
        for number in range(THINGS):
            draw_scene(self.scenes[number], rng).save(self.store / f"scene{number}.png")
            draw_page(self.pages[number]).save(self.store / f"page{number}.png")
            for frame in range(4):
                draw_clip(self.clips[number], frame + 0.25).save(self.store / f"clip{number}-{frame}.png")
        write_clip([self.clips[0]], self.store / "clip0.mp4")

    def scene(self, number: int, path: Path) -> None:
        link(self.store / f"scene{number}.png", path)

    def page(self, number: int, path: Path) -> None:
        link(self.store / f"page{number}.png", path)

    def film(self, number: int, folder: Path) -> None:
        for frame in range(4):
            link(self.store / f"clip{number}-{frame}.png", folder / f"frame_{frame}.png")


def link(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        os.link(source, path)


def write_parquet(rows: Rows, path: Path, *, group: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)


def write_jsonl(rows: Rows, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def rotated(number: int) -> list[int]:
    """All things, the one that is asked for first, as the published rows list them."""
    return [number, *(other for other in range(THINGS) if other != number)]


def image_rows(world: World, task: Task, folder: Path) -> Rows:
    media = folder / task.media
    rows: Rows = []
    captioned = task.name in {"WebQA", "EDIS", "RefCOCO-Matching"}
    for number in range(QUERIES):
        order = rotated(number)
        for other in order:
            world.scene(other, media / task.name / f"{other}.png")
        shows = task.layout != "text_to_image"
        targets = task.layout != "image_to_text"
        words = [world.scenes[other].words for other in order]
        rows.append(
            {
                "qry_inst": "<|image_1|> Represent the given image" if shows else "Find an image:",
                "qry_text": "" if shows and task.groups == ("image CLS",) else words[0],
                "qry_img_path": f"{task.name}/{number}.png" if shows else "",
                "tgt_inst": "<|image_1|> Represent the given image" if targets else "",
                "tgt_text": [w if captioned else "" for w in words] if targets else words,
                "tgt_img_path": [f"{task.name}/{other}.png" if targets else "" for other in order],
            }
        )
    return rows


def video_rows(world: World, task: Task, folder: Path) -> Rows:
    frames = folder / task.media
    rows: Rows = []
    words = [clip.words for clip in world.clips]
    for number in range(QUERIES):
        name = f"vid.{number}"
        match task.layout:
            case "video_class":
                world.film(number, frames / name)
                rows.append({"video_id": name, "pos_text": "milk" if task.name == "Breakfast" else f"class {number}"})
            case "video_choice":
                world.film(number, frames / str(number))
                rows.append({"video_id": number, "pos_text": words[number], "neg_text": words})
            case "text_to_video":
                world.film(number, frames / name)
                video, text = task.columns
                several = task.name in {"MSVD", "VATEX"}
                path = f"somewhere/{name}.mp4" if task.name == "DiDeMo" else name
                rows.append({video: path, text: [words[number], "another"] if several else words[number]})
            case "video_mme":
                world.film(number, frames / name)
                options = [f"{'ABCD'[n]}. {words[n]}." for n in range(4)]
                rows.append({"videoID": name, "question": "what?", "options": options, "answer": "ABCD"[number]})
            case "nextqa":
                world.film(number, frames / str(number))
                options = {f"a{n}": words[n] for n in range(5)}
                rows.append({"video": number, "question": "what?", "answer": number, **options})
            case "egoschema":
                world.film(number, frames / name)
                options = [f"{'ABCDE'[n]}. {words[n]}" for n in range(5)]
                rows.append({"video_idx": name, "question": "what?", "option": options, "answer": str(number)})
            case "activitynet_qa":
                world.film(number, frames / f"v_{name}")
                rows.append({"video_name": name, "question": "is it red", "answer": ("yes", "no")[number % 2]})
            case "moment":
                world.film(number, frames / name / "query")
                for place, other in enumerate(rotated(number)):
                    world.film(other, frames / name / ("positive" if place == 0 else f"negative_{place}"))
                rows.append({"query": words[number], "video_path": f"videos/{name}.mp4"})
            case "momentseeker":
                rows.append(_seeking(world, frames, number, words[number]))
            case other:
                raise AssertionError(other)
    return rows


def _seeking(world: World, frames: Path, number: int, words: str) -> dict[str, Any]:
    """One query by words alone, one with a picture, one with a video."""
    seen = ("", f"pic{number}.jpg", f"movie/{number}.mp4")[number]
    if number == 1:
        world.scene(number, frames / f"query_{seen}")
    if number == 2:
        world.film(number, frames / "video_frames" / f"movie_{number}")
    clips = rotated(number)
    for other in clips:
        world.film(other, frames / "video_frames" / f"clips_{other}")
    paths = [{"output_path": f"clips/{other}.mp4"} for other in clips]
    return {"query": words, "input_frames": seen, "positive_frames": paths[:2], "negative_frames": paths[2:]}


def write_pages(world: World, task: Task, folder: Path) -> None:
    root = folder / task.rows[0]
    split = task.rows[2]
    visrag = task.name.startswith("VisRAG")
    names: list[Any] = [f"page {number}.png" if visrag else number for number in range(THINGS)]
    # Half of the pages lie in the published folder of pictures, the others in the corpus alone.
    for number in range(0, THINGS, 2):
        file = short_name(names[number]) if visrag else f"{number}.png"
        world.page(number, folder / task.media / file)
    stored = [(world.store / f"page{number}.png").read_bytes() for number in range(THINGS)]
    corpus = [
        {"corpus-id": name, "image": {"bytes": data, "path": None}} for name, data in zip(names, stored, strict=True)
    ]
    queries = [{"query-id": number, "query": world.pages[number].rows[0].look.words} for number in range(QUERIES)]
    judged = [{"query-id": n, "corpus-id": names[n], "score": 2} for n in range(QUERIES)]
    judged += [{"query-id": n, "corpus-id": names[n + 1], "score": 1} for n in range(QUERIES)]
    judged += [{"query-id": 0, "corpus-id": names[4], "score": 0}]
    for configuration, rows in (("corpus", corpus), ("queries", queries), ("qrels", judged)):
        write_parquet(rows, root / configuration / f"{split}-00000-of-00001.parquet")


def write_mmeb(world: World, folder: Path, tasks: Sequence[Task] | None = None) -> Path:
    """MMEB-V2 in the published layout: rows as the hub stores them beside unpacked pictures and frames."""
    for task in tasks or all_tasks("mmeb-v2"):
        repository, configuration, split = task.rows
        if task.layout == "pages":
            write_pages(world, task, folder)
        elif task.groups[0].startswith("image"):
            write_parquet(
                image_rows(world, task, folder), folder / repository / str(configuration) / f"{split}-0-of-1.parquet"
            )
        elif task.layout == "mvbench":
            write_mvbench(world, task, folder)
        else:
            # Parquet or JSON lines, below a configuration or not: the hub has all of it.
            place = folder / "video-tasks" / repository.rpartition("/")[2] / (configuration or "data")
            write: Callable[[Rows, Path], None] = write_parquet if configuration is None else write_jsonl
            suffix = "parquet" if configuration is None else "jsonl"
            write(video_rows(world, task, folder), place / f"{split}-00000-of-00001.{suffix}")
    return folder


def write_mvbench(world: World, task: Task, folder: Path) -> None:
    words = [clip.words for clip in world.clips]
    for number, subset in enumerate(task.subsets[:QUERIES]):
        video = f"{number}.mp4"
        world.film(number, folder / task.media / subset / video)
        row = {"question": "what?", "video": video, "candidates": words[:4], "answer": words[number]}
        file = folder / task.rows[0] / "json" / f"{subset}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([row]), encoding="utf-8")


def write_uvrb(world: World, folder: Path, tasks: Sequence[Task] | None = None) -> Path:
    """UVRB as its archives unpack: text, picture and video queries, videos as frames and one as a file."""
    for task in tasks or all_tasks("uvrb"):
        place = folder / task.media / "UVRB" / task.media
        for number in range(THINGS):
            if number == 0:
                link(world.store / "clip0.mp4", place / "videos" / "sub" / "0.mp4")
            else:
                world.film(number, place / "videos_frames" / "sub" / str(number))
            world.scene(number, place / "images" / f"{number}.png")
        words = [clip.words for clip in world.clips]
        queries: Rows = []
        for number in range(QUERIES):
            row: dict[str, Any] = {"id": f"q{number}"}
            if task.groups[0] != "VIS":
                row["text"] = words[number]
            if task.name in {"MS-TI", "MSRVTT-I2V"}:
                row["image"] = f"{number}.png"
            if task.name in {"MS-TV", "LoVR-C2V"}:
                row["video"] = f"sub/{number}.mp4"
            queries.append(row)
        answers: Rows = [
            {"qid": f"q{n}", "pos": [f"d{n}", f"d{n + 1}"] if task.groups[0] == "CMP" else [f"d{n}"]}
            for n in range(QUERIES)
        ]
        if task.name == "MS-TV":
            for row in answers:
                row["neg"] = [f"d{n}" for n in range(THINGS) if f"d{n}" not in row["pos"]][:2]
        write_jsonl(queries, place / "jsonl" / "queries.jsonl")
        write_jsonl(answers, place / "jsonl" / "instances.jsonl")
        corpus = [{"id": f"d{number}", "video": f"sub/{number}.mp4"} for number in range(THINGS)]
        write_jsonl(corpus, place / "jsonl" / "corpus.jsonl")
    return folder


def fakes(folder: Path | None = None) -> ReasoningEmbedder:
    cache = TraceCache(folder / "traces.sqlite3") if folder else None
    return fake_embedder(cache=cache)
