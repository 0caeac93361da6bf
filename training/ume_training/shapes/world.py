"""Scenes, clips and pages as frozen values, how they are said in words, and how look-alikes are made."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from ume_training.shapes.levels import COLUMNS, MOTIONS, ROWS, Level

CELLS = 9
"""A scene is a 3 x 3 grid; cell 0 is top left, cell 8 bottom right."""

CLIP_SECONDS = 4


@dataclass(frozen=True, slots=True)
class Look:
    """Look of a thing, independent of its place."""

    colour: str
    shape: str
    texture: str = "plain"

    @property
    def words(self) -> str:
        """Its name, such as "red circle" or "striped red circle"."""
        plain = f"{self.colour} {self.shape}"
        return plain if self.texture == "plain" else f"{self.texture} {plain}"


@dataclass(frozen=True, slots=True)
class Thing:
    """A look in a cell."""

    look: Look
    cell: int

    @property
    def words(self) -> str:
        """Its name and place, such as "red circle top left"."""
        return f"{self.look.words} {place(self.cell)}"


@dataclass(frozen=True, slots=True)
class Scene:
    """Things in different cells, in reading order."""

    things: tuple[Thing, ...]

    @property
    def words(self) -> str:
        """Every thing with its place, in reading order."""
        return ", ".join(thing.words for thing in self.things)


@dataclass(frozen=True, slots=True)
class Clip:
    """Four seconds: an actor moves along a line of cells, and a guest shows for one second.

    Attributes:
        actor: Who moves.
        motion: "right", "left", "down" or "up".
        line: Row of a sideways motion, column of an upright one, 0..2.
        guest: Who shows for one second.
        second: Which second it shows in, 1..4.
    """

    actor: Look
    motion: str
    line: int
    guest: Thing
    second: int

    @property
    def action(self) -> str:
        """Action of the actor, such as "red circle moves right top"."""
        lane = ROWS[self.line] if self.motion in {"left", "right"} else COLUMNS[self.line]
        return f"{self.actor.words} moves {self.motion} {lane}"

    @property
    def words(self) -> str:
        """The action, and the guest with place and second."""
        return f"{self.action}, {self.guest.words} second {self.second}"

    def cell_at(self, second: int) -> int:
        """Return the actor's cell in second 1..4."""
        step = min(second - 1, 2)
        along = step if self.motion in {"right", "down"} else 2 - step
        return self.line * 3 + along if self.motion in {"left", "right"} else along * 3 + self.line

    @property
    def path(self) -> frozenset[int]:
        """Every cell that the actor visits."""
        return frozenset(self.cell_at(second) for second in range(1, CLIP_SECONDS + 1))


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a page: a thing and how many are in stock, 0..9."""

    look: Look
    count: int

    @property
    def words(self) -> str:
        """Name and number, such as "red circle 7"."""
        return f"{self.look.words} {self.count}"


@dataclass(frozen=True, slots=True)
class Page:
    """A stock list."""

    rows: tuple[Row, ...]

    @property
    def words(self) -> str:
        """Every row from top to bottom."""
        return "page with " + ", ".join(row.words for row in self.rows)


def place(cell: int) -> str:
    """Return where a cell is, such as "top left"."""
    return f"{ROWS[cell // 3]} {COLUMNS[cell % 3]}"


def sample_look(rng: random.Random, level: Level) -> Look:
    """Draw a look."""
    return Look(rng.choice(level.colours), rng.choice(level.shapes), rng.choice(level.textures))


def sample_scene(rng: random.Random, level: Level, fewest: int = 2) -> Scene:
    """Draw a scene of `fewest` to `level.most_things` things."""
    cells = sorted(rng.sample(range(CELLS), rng.randint(fewest, level.most_things)))
    return Scene(tuple(Thing(sample_look(rng, level), cell) for cell in cells))


def sample_clip(rng: random.Random, level: Level, actor: Look | None = None) -> Clip:
    """Draw a clip, with a given actor if one is named."""
    actor = actor or sample_look(rng, level)
    motion, line = rng.choice(MOTIONS), rng.randrange(3)
    bare = Clip(actor, motion, line, Thing(actor, 0), 1)
    cell = rng.choice([cell for cell in range(CELLS) if cell not in bare.path])
    guest = unlike(rng, [actor], level)
    return replace(bare, guest=Thing(guest, cell), second=rng.randint(1, CLIP_SECONDS))


def sample_page(rng: random.Random, level: Level) -> Page:
    """Draw a page whose rows name different looks."""
    looks: list[Look] = []
    for _ in range(level.page_rows):
        looks.append(unlike(rng, looks, level))
    return Page(tuple(Row(look, rng.randrange(10)) for look in looks))


def unlike(rng: random.Random, taken: list[Look], level: Level) -> Look:
    """Draw a look that is not among `taken`."""
    while (look := sample_look(rng, level)) in taken:
        pass
    return look


def near_look(rng: random.Random, look: Look, level: Level) -> Look:
    """Return the same look with one attribute changed."""
    choices = [replace(look, colour=c) for c in level.colours if c != look.colour]
    choices += [replace(look, shape=s) for s in level.shapes if s != look.shape]
    choices += [replace(look, texture=t) for t in level.textures if t != look.texture]
    return rng.choice(choices)


def near_scene(rng: random.Random, scene: Scene, level: Level) -> Scene:
    """Return a scene one change away: a thing looks different, has moved, or two have swapped looks."""
    things = list(scene.things)
    index = rng.randrange(len(things))
    kind = rng.random()
    free = [cell for cell in range(CELLS) if cell not in {thing.cell for thing in things}]
    if kind < 0.25 and free:
        things[index] = replace(things[index], cell=rng.choice(free))
    elif kind < 0.4 and len({thing.look for thing in things}) > 1:
        mate = rng.choice([i for i, thing in enumerate(things) if thing.look != things[index].look])
        first, second = things[index], things[mate]
        things[index], things[mate] = replace(first, look=second.look), replace(second, look=first.look)
    else:
        things[index] = replace(things[index], look=near_look(rng, things[index].look, level))
    return Scene(tuple(sorted(things, key=lambda thing: thing.cell)))


def near_clip(rng: random.Random, clip: Clip, level: Level) -> Clip:
    """Return a clip one change away: another motion, second, guest or actor."""
    kind = rng.randrange(4)
    if kind == 0:
        return replace(clip, second=rng.choice([s for s in range(1, CLIP_SECONDS + 1) if s != clip.second]))
    if kind == 1:
        return replace(clip, guest=replace(clip.guest, look=near_look(rng, clip.guest.look, level)))
    if kind == 2:
        return replace(clip, actor=near_look(rng, clip.actor, level))
    opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
    return replace(clip, motion=opposite[clip.motion])


def near_page(rng: random.Random, page: Page, level: Level) -> Page:
    """Return a page that differs in one number or one row."""
    rows = list(page.rows)
    index = rng.randrange(len(rows))
    row = rows[index]
    if rng.random() < 0.6:
        rows[index] = replace(row, count=rng.choice([n for n in range(10) if n != row.count]))
    else:
        rows[index] = replace(row, look=unlike(rng, [r.look for r in rows], level))
    return Page(tuple(rows))
