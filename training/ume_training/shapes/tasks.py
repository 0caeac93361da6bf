"""The tasks that MMEB-V2 groups, on Shapes: each draws a pair, and a pair that is easy to take for another."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from ume_training.shapes.levels import NUMBERS, Level
from ume_training.shapes.samples import Crop, Pair, Sample
from ume_training.shapes.truth import (
    clip_question_tcot,
    clip_tcot,
    crop_tcot,
    page_tcot,
    scene_question_tcot,
    scene_tcot,
    text_tcot,
)
from ume_training.shapes.world import (
    CELLS,
    Clip,
    Look,
    Page,
    Scene,
    Thing,
    near_clip,
    near_look,
    near_page,
    near_scene,
    place,
    sample_clip,
    sample_look,
    sample_page,
    sample_scene,
)

Draw = Callable[[random.Random, Level], Pair]
Near = Callable[[random.Random, Level, Pair], Pair]


@dataclass(frozen=True, slots=True)
class Task:
    """One retrieval task.

    Attributes:
        name: As in reports.
        group: The MMEB-V2 group that it represents.
        draw: Draws a pair.
        near: Draws a look-alike of a pair: a pair one change away.
    """

    name: str
    group: str
    draw: Draw
    near: Near


def said(text: str, prefix: str = "") -> Sample:
    """Build the sample of a text; its T-CoT keeps what follows the prefix."""
    return Sample(prefix + text, None, text_tcot(text), frozenset({text}))


def _scene_item(scene: Scene) -> Sample:
    return Sample(None, scene, scene_tcot(scene), frozenset({scene.words}))


def _clip_item(clip: Clip) -> Sample:
    return Sample(None, clip, clip_tcot(clip), frozenset({clip.words, _moment(clip)}))


def _page_item(page: Page) -> Sample:
    return Sample(None, page, page_tcot(page), frozenset(row.words for row in page.rows))


def _shuffled(rng: random.Random, scene: Scene) -> str:
    return ", ".join(thing.words for thing in rng.sample(scene.things, len(scene.things)))


def _scene_of(sample: Sample) -> Scene:
    return cast("Scene", sample.shown)


def _clip_of(sample: Sample) -> Clip:
    return cast("Clip", sample.shown)


# Image classification: how many of which thing.


def _kind_pair(rng: random.Random, look: Look, count: int) -> Pair:
    cells = sorted(rng.sample(range(CELLS), count))
    scene = Scene(tuple(Thing(look, cell) for cell in cells))
    label = f"{NUMBERS[count]} {look.words}"
    tcot = replace(scene_tcot(scene), answer=label)
    return Pair("image_classification", Sample("what is shown?", scene, tcot), said(label), frozenset({label}))


def _draw_kind(rng: random.Random, level: Level) -> Pair:
    return _kind_pair(rng, sample_look(rng, level), rng.randint(1, 4))


def _near_kind(rng: random.Random, level: Level, pair: Pair) -> Pair:
    things = _scene_of(pair.query).things
    look, count = things[0].look, len(things)
    if rng.random() < 0.3:
        return _kind_pair(rng, look, rng.choice([n for n in range(1, 5) if n != count]))
    return _kind_pair(rng, near_look(rng, look, level), count)


# Image question answering.


def _draw_image_question(rng: random.Random, level: Level) -> Pair:
    return _image_question(rng, sample_scene(rng, level), level)


def _near_image_question(rng: random.Random, level: Level, pair: Pair) -> Pair:
    scene = _scene_of(pair.query)
    return _image_question(rng, scene if rng.random() < 0.5 else near_scene(rng, scene, level), level)


def _image_question(rng: random.Random, scene: Scene, level: Level) -> Pair:
    thing = rng.choice(scene.things)
    twins = [t for t in scene.things if t.look == thing.look]
    kind = rng.choice(level.questions)
    evidence = [thing]
    if kind == "where" and len(twins) == 1:
        question, answer = f"where is the {thing.look.words}?", place(thing.cell)
    elif kind == "how many":
        evidence = [t for t in scene.things if t.look.colour == thing.look.colour]
        question, answer = f"how many {thing.look.colour} shapes?", NUMBERS[len(evidence)]
    else:
        question, answer = f"what is {place(thing.cell)}?", thing.look.words
    rethink = ", ".join(t.words for t in evidence)
    tcot = scene_question_tcot(scene, evidence, rethink, answer)
    return Pair("image_question", Sample(question, scene, tcot), said(answer), frozenset({answer}))


# Retrieval between text and images.


def _text_to_image(rng: random.Random, scene: Scene) -> Pair:
    query = said(_shuffled(rng, scene), "find image: ")
    return Pair("text_to_image", query, _scene_item(scene), frozenset({scene.words}))


def _image_to_text(rng: random.Random, scene: Scene) -> Pair:
    caption = said(_shuffled(rng, scene))
    positive = replace(caption, facts=frozenset({scene.words}))
    query = Sample("describe the image", scene, scene_tcot(scene))
    return Pair("image_to_text", query, positive, frozenset({scene.words}))


def _change(rng: random.Random, scene: Scene, level: Level) -> Pair:
    singles = [t for t in scene.things if sum(o.look == t.look for o in scene.things) == 1]
    if not singles:
        return _change(rng, sample_scene(rng, level), level)
    thing = rng.choice(singles)
    if rng.random() < 0.3 and len(scene.things) > 2:
        order, things = f"remove the {thing.look.words}", [t for t in scene.things if t != thing]
        note = f"no {thing.look.words}"
    else:
        look = near_look(rng, thing.look, level)
        order = f"change the {thing.look.words} to a {look.words}"
        things = [replace(t, look=look) if t == thing else t for t in scene.things]
        note = f"{thing.look.words} to {look.words}"
    result = Scene(tuple(things))
    tcot = scene_question_tcot(scene, [thing], note, result.words)
    return Pair("image_change", Sample(order, scene, tcot), _scene_item(result), frozenset({result.words}))


def _near_change(rng: random.Random, level: Level, pair: Pair) -> Pair:
    scene = _scene_of(pair.query)
    return _change(rng, scene if rng.random() < 0.7 else near_scene(rng, scene, level), level)


# Visual grounding: the thing that a place or a trait points to, as a crop.


def _grounding(rng: random.Random, scene: Scene) -> Pair:
    thing = rng.choice(scene.things)
    alone = [t for t in scene.things if t.look.shape == thing.look.shape]
    phrase = f"the {thing.look.shape}" if len(alone) == 1 and rng.random() < 0.5 else f"the shape {place(thing.cell)}"
    tcot = scene_question_tcot(scene, [thing], thing.words, thing.look.words)
    crop = Sample(None, Crop(thing.look), crop_tcot(thing.look), frozenset({thing.look.words}))
    return Pair("grounding", Sample(phrase, scene, tcot), crop, frozenset({thing.look.words}))


def _near_grounding(rng: random.Random, level: Level, pair: Pair) -> Pair:
    scene = _scene_of(pair.query)
    return _grounding(rng, scene if rng.random() < 0.5 else near_scene(rng, scene, level))


# Video.


def _motion(clip: Clip) -> Pair:
    label = f"{clip.actor.words} moves {clip.motion}"
    query = Sample("what happens?", clip, clip_question_tcot(clip, label))
    return Pair("video_classification", query, said(label), frozenset({label}))


def _near_motion(rng: random.Random, level: Level, pair: Pair) -> Pair:
    clip = _clip_of(pair.query)
    actor = near_look(rng, clip.actor, level) if rng.random() < 0.5 else clip.actor
    turned = sample_clip(rng, level, actor)
    return _motion(turned)


def _video_question(rng: random.Random, clip: Clip) -> Pair:
    question, answer = rng.choice(
        [
            ("which shape appears?", clip.guest.look.words),
            (f"where does the {clip.guest.look.words} appear?", place(clip.guest.cell)),
            (f"when does the {clip.guest.look.words} appear?", f"second {clip.second}"),
            (f"which way does the {clip.actor.words} move?", clip.motion),
        ]
    )
    return Pair(
        "video_question",
        Sample(question, clip, clip_question_tcot(clip, answer)),
        said(answer),
        frozenset({answer}),
    )


def _near_video_question(rng: random.Random, level: Level, pair: Pair) -> Pair:
    clip = _clip_of(pair.query)
    return _video_question(rng, clip if rng.random() < 0.5 else near_clip(rng, clip, level))


def _text_to_video(clip: Clip) -> Pair:
    return Pair("text_to_video", said(clip.words, "find video: "), _clip_item(clip), frozenset({clip.words}))


def _moment(clip: Clip) -> str:
    return f"{clip.action}, {clip.guest.look.words}"


def _moment_pair(clip: Clip) -> Pair:
    return Pair("moment_retrieval", said(_moment(clip), "find moment: "), _clip_item(clip), frozenset({_moment(clip)}))


def _near_moment(rng: random.Random, level: Level, pair: Pair) -> Pair:
    """Another moment of the same long video: the same actor, or nearly the same doings."""
    clip = _clip_of(pair.positive)
    return _moment_pair(sample_clip(rng, level, clip.actor) if rng.random() < 0.5 else near_clip(rng, clip, level))


# Documents.


def _page_pair(rng: random.Random, page: Page) -> Pair:
    rows = rng.sample(page.rows, 2)
    words = "page with " + ", ".join(row.words for row in rows)
    return Pair("page_retrieval", said(words, "find "), _page_item(page), frozenset(row.words for row in rows))


def _near_page(rng: random.Random, level: Level, pair: Pair) -> Pair:
    return _page_pair(rng, near_page(rng, cast("Page", pair.positive.shown), level))


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("image_classification", "image CLS", _draw_kind, _near_kind),
        Task("image_question", "image QA", _draw_image_question, _near_image_question),
        Task(
            "text_to_image",
            "image RET",
            lambda rng, level: _text_to_image(rng, sample_scene(rng, level)),
            lambda rng, level, pair: _text_to_image(rng, near_scene(rng, _scene_of(pair.positive), level)),
        ),
        Task(
            "image_to_text",
            "image RET",
            lambda rng, level: _image_to_text(rng, sample_scene(rng, level)),
            lambda rng, level, pair: _image_to_text(rng, near_scene(rng, _scene_of(pair.query), level)),
        ),
        Task(
            "image_change",
            "image RET",
            lambda rng, level: _change(rng, sample_scene(rng, level), level),
            _near_change,
        ),
        Task(
            "grounding",
            "image GD",
            lambda rng, level: _grounding(rng, sample_scene(rng, level)),
            _near_grounding,
        ),
        Task("video_classification", "video CLS", lambda rng, level: _motion(sample_clip(rng, level)), _near_motion),
        Task(
            "video_question",
            "video QA",
            lambda rng, level: _video_question(rng, sample_clip(rng, level)),
            _near_video_question,
        ),
        Task(
            "text_to_video",
            "video RET",
            lambda rng, level: _text_to_video(sample_clip(rng, level)),
            lambda rng, level, pair: _text_to_video(near_clip(rng, _clip_of(pair.positive), level)),
        ),
        Task("moment_retrieval", "video MRET", lambda rng, level: _moment_pair(sample_clip(rng, level)), _near_moment),
        Task(
            "page_retrieval",
            "document VDR",
            lambda rng, level: _page_pair(rng, sample_page(rng, level)),
            _near_page,
        ),
    )
}
"""Every task by name, in the order of the paper's groups."""


def family(task: Task, rng: random.Random, level: Level, size: int) -> list[Pair]:
    """Return a pair and `size - 1` look-alikes of it, each one change away from one drawn before."""
    pairs = [task.draw(rng, level)]
    while len(pairs) < size:
        pairs.append(task.near(rng, level, rng.choice(pairs)))
    return pairs
