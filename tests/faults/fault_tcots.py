"""Model output of every kind: mutated T-CoTs through parser, evidence, pipeline, store and report page.

    fault_tcots.py WORK --tcots 10000 [--seed 0]

Each reply is parsed against pictures and frames that it may not name; what comes out must be in range, and evidence is
cut by it. The traces go on report pages, where nothing of them may act: every tag is the template's, no attribute runs
anything, no address leads out. Replies are also given by a Reasoner to `index`. Prints counts as JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
import traceback
from html.parser import HTMLParser
from pathlib import Path

import PIL.Image
from fault_work import Counts, Journal, dump, note

from ume_qdrant import EdgeStore, Filter, index
from ume_retrieval import Frames, LoadedItem, TCot
from ume_retrieval.chat import Chat, TextPart
from ume_retrieval.report import ReportHit, ReportPage, ReportQuery, draw_contact_sheet, render_html
from ume_retrieval.tcot import Box, extract, is_usable, parse, render, validate
from ume_retrieval.testing import FakeReasoner, fake_embedder

ROUND = 500
SLOW_S = 10.0
ITEM = LoadedItem(
    "a thing",
    tuple(PIL.Image.new("RGB", size, "red") for size in ((64, 48), (1, 1), (3, 500))),
    (Frames(tuple(PIL.Image.new("RGB", (32, 24), "blue") for _ in range(4)), (0.0, 1.0, 2.0, 3.0), 4.0),),
    None,
    "0" * 64,
)
HOSTILE = (
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>", "javascript:alert(1)"),
    *(
        "</style><script>1</script>",
        "<a href='//evil.example'>x</a>",
        "{{7*7}}",
        "{% include '/etc/passwd' %}",
        "${7*7}",
    ),
    *("\x1b[31m", "\x1b]8;;http://evil.example\x07", "\u202e", "\u0000", "\ud800", "<!--", "-->", "]]>"),
    *("<iframe src=//e>", "<form action=//e>", "<meta http-equiv=refresh content='0;url=//e'>", "&lt;script&gt;"),
    *("&#60;script&#62;", "' onx='", '" style="x:expression(1)', "<base href=//e>", "<link rel=stylesheet href=//e>"),
    *("'; DROP TABLE traces; --", "A" * 5_000, "<|im_end|>", "<|image_pad|>", "<emb>", "😀" * 50, "%s%n"),
    *("../../etc/passwd", "data:text/html,<script>1</script>"),
)
NUMBERS = (
    "-1",
    "1e309",
    "9" * 400,
    "NaN",
    "Infinity",
    "-0",
    "0.5",
    "1000",
    "1001",
    "true",
    "null",
    '"7"',
    "1e-5",
    "0x1",
)
TAGS = (
    *("<thinking>", "</thinking>", "<rethink>", "</rethink>", "<answer>", "</answer>"),
    *('{"bbox_2d": ', '{"key_frames": '),
)
TEMPLATE_TAGS = """
html head meta title style body div header h1 h2 h3 bdi p dl dt dd table caption thead tbody tr th td nav ol ul li a
main section span b i img mark details summary pre
"""
ALLOWED_TAGS = set(TEMPLATE_TAGS.split())


def reply(number: int) -> str:
    """The n-th mutated T-CoT; the same number gives the same text."""
    rng = random.Random(number)
    boxes = tuple(
        Box(*(rng.choice((0, 3, 400)),) * 2, *(rng.choice((401, 999, 1000)),) * 2, image=rng.randrange(5))
        for _ in range(rng.randrange(4))
    )
    frames = tuple(sorted(rng.sample(range(1, 40), rng.randrange(4))))
    text = render(TCot("It shows a thing.", "Yes.", "a thing", ("thing", "red")[: rng.randrange(3)], boxes, frames))
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        place = rng.randrange(len(text) + 1)
        match rng.randrange(9):
            case 0:
                text = text[:place] + rng.choice(HOSTILE) + text[place:]
            case 1:
                text = re.sub(r"\d+", lambda match: rng.choice((match[0], rng.choice(NUMBERS))), text)
            case 2:
                text = text[:place] + text[place + rng.randrange(1, 40) :]
            case 3:
                text = text[:place] + rng.choice(TAGS) * rng.choice((1, 2, 50)) + text[place:]
            case 4:
                text = text[:place] + rng.choice("[{]}\",'\\") * rng.choice((1, 3, 2_000)) + text[place:]
            case 5:
                text = text.replace("a thing", rng.choice(HOSTILE))
            case 6:
                text = text[:place]
            case 7:
                characters = list(text)
                for _ in range(8):
                    code = rng.choice((rng.randrange(32, 127), rng.randrange(0x110000)))
                    characters[rng.randrange(len(characters))] = chr(code)
                text = "".join(characters)
            case 8:
                text = text[:place] + text * rng.choice((1, 20)) + text[place:]
        text = text or " "
    return text


def parsed(text: str) -> TCot:
    """Read a reply as the pipeline does, check what came out of it, and cut its evidence.

    Raises:
        AssertionError: When something is out of range.
    """
    tcot = parse(text, images=3, frames=4)
    for modality in ("text", "image", "video"):
        validate(tcot, modality)
    _hold(all(0 <= b.x1 < b.x2 <= 1000 and 0 <= b.y1 < b.y2 <= 1000 and 0 <= b.image < 3 for b in tcot.boxes), "a box")
    _hold(all(1 <= frame <= 4 for frame in tcot.key_frames), "a frame")
    render(tcot).encode("utf-8")
    found = extract(tcot, ITEM, limit=4)
    _hold(all(image.width > 0 and image.height > 0 for image in found.images), "an empty crop")
    is_usable(tcot)
    return tcot


def _hold(good: bool, what: str) -> None:
    if not good:
        raise AssertionError(f"{what} is out of range")


class Inert(HTMLParser):
    """Fails on whatever could act or lead out of the page."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        _hold(tag in ALLOWED_TAGS, f"tag {tag!r}")
        for name, value in attrs:
            _hold(not name.startswith("on") and name not in {"srcset", "action", "formaction"}, f"attribute {name!r}")
            _hold(name != "href" or re.fullmatch(r"#q\d+", value or "") is not None, f"link {value!r}")
            _hold(name != "src" or (value or "").startswith("data:image/"), f"address {value!r:.80}")
            _hold(name != "http-equiv" or value == "Content-Security-Policy", f"meta {value!r}")
            _hold(name != "style" or re.search(r"url|expression|@|\\", value or "") is None, f"style {value!r}")


def page_of(tcots: list[TCot], texts: list[str]) -> None:
    """A report page and a contact sheet that show them all."""
    hits = tuple(
        ReportHit(text[:200], "image", 0.5, text=text, images=ITEM.images, videos=ITEM.videos, trace=tcot)
        for tcot, text in zip(tcots, texts, strict=True)
    )
    queries = tuple(ReportQuery(text=texts[n], trace=tcots[n], hits=hits[n : n + 5]) for n in range(0, len(hits), 5))
    page = ReportPage(title=texts[0][:50], queries=queries)
    Inert().feed(render_html(page))
    draw_contact_sheet(page, max_queries=2)


def words_of(chat: Chat) -> str:
    """The item's own words."""
    return " ".join(part.text for message in chat for part in message.parts if isinstance(part, TextPart))


def indexed(numbers: range, work: Path) -> Counts:
    """Let a Reasoner answer so while texts are indexed, and put the store's hits on a page."""
    counts = Counts()
    folder = work / f"texts{numbers.start}"
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"{number}.txt").write_text(f"thing {number}", encoding="utf-8")
    reasoner = FakeReasoner(lambda chat: reply(int(re.findall(r"\d+", words_of(chat))[-1])))
    with EdgeStore(work / "vectors", f"texts{numbers.start}") as store:
        report = index(fake_embedder(reasoner=reasoner), store, folder, reasoning="always")
        points = dump(store)
        hits = list(store.scroll(Filter(reasoning=("done",))))
        json.dumps(report.to_dict(), allow_nan=False)
    counts.lost = len(numbers) - len(points)
    counts.notes = {"usable": len(hits), "refused": len(points) - len(hits)}
    if len(hits) + len(report.failed) != len(numbers):
        counts.broken.append(f"{numbers}: {len(hits)} done and {len(report.failed)} failed of {len(numbers)}")
        counts.lost += 1
    return counts


def round_of(numbers: range, work: Path) -> Counts:
    """One round."""
    counts, tcots, texts = Counts(tcots=len(numbers)), [], []
    for number in numbers:
        text = reply(number)
        started = time.perf_counter()
        try:
            tcots.append(parsed(text))
            texts.append(text)
        except Exception as error:  # noqa: BLE001  # whatever comes through is what is looked for
            counts.crashes += 1
            counts.broken.append(f"T-CoT {number}: {type(error).__name__}: {error}")
        if time.perf_counter() - started > SLOW_S:
            counts.hangs += 1
            counts.broken.append(f"T-CoT {number}: took {time.perf_counter() - started:.1f} s")
    for start in range(0, len(texts), 100):
        try:
            page_of(tcots[start : start + 100], texts[start : start + 100])
        except Exception:  # noqa: BLE001  # as above
            counts.crashes += 1
            counts.broken.append(f"page at {numbers.start + start}: {traceback.format_exc()[-500:]}")
    try:
        more = indexed(numbers, work)
    except Exception:  # noqa: BLE001  # as above
        counts.crashes += 1
        counts.broken.append(f"index at {numbers.start}: {traceback.format_exc()[-500:]}")
    else:
        counts.lost += more.lost
        counts.broken += more.broken
        counts.notes = more.notes
    return counts


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("work", type=Path)
    arguments.add_argument("--tcots", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    journal, total = Journal(given.work / "tcots.jsonl"), Counts()
    while total.tcots < given.tcots:
        begin = given.seed * 10**6 + total.tcots
        numbers = range(begin, begin + min(ROUND, given.tcots - total.tcots))
        name = f"{numbers.start}-{numbers.stop}"
        if journal.get(name) is None:
            journal.put(name, round_of(numbers, given.work.resolve() / name))
        total.add(journal.get(name) or {})
        note(f"tcots: {total.tcots} of {given.tcots}, {json.dumps(total.notes)}, {len(total.broken)} broken")
    total.print()


if __name__ == "__main__":
    main()
