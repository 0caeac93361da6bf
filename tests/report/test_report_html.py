"""The HTML page: what it shows, that it needs nothing from outside, and that nothing in it can act."""

from __future__ import annotations

import base64
import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ume_retrieval import Frames, InputError, TCot
from ume_retrieval.report import ReportHit, ReportPage, ReportQuery, ReportTable, render_html, write_html
from ume_retrieval.tcot import Box, Problem

# fmt: off
VOID = {"meta", "img", "br", "link", "input"}
ALLOWED_TAGS = {
    "html", "head", "meta", "title", "style", "body", "div", "header", "h1", "h2", "h3", "bdi", "p", "dl", "dt", "dd",
    "table", "caption", "thead", "tbody", "tr", "th", "td", "nav", "ol", "ul", "li", "a", "main", "section", "span",
    "b", "i", "img", "mark", "details", "summary", "pre",
}
ALLOWED_ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "class", "dir", "tabindex", "scope", "aria-label",
    "aria-labelledby", "aria-hidden", "href", "id", "style", "src", "alt", "width", "height", "role",
}
# fmt: on


class Reader(HTMLParser):
    """Collects tags with attributes, and the text outside of the style sheet; fails on tags that do not nest."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(document)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag: str, class_: str | None = None) -> list[dict[str, str | None]]:
        return [
            attrs
            for name, attrs in self.tags
            if name == tag and (class_ is None or class_ in (attrs.get("class") or "").split())
        ]


def assert_inert(document: str) -> Reader:
    """No tag or attribute but the template's own, no address but inline pictures and places on the page itself."""
    reader = Reader(document)
    assert {tag for tag, _ in reader.tags} <= ALLOWED_TAGS
    assert {name for _, attrs in reader.tags for name in attrs} <= ALLOWED_ATTRIBUTES
    assert len(reader.all("style")) == 1
    for image in reader.all("img"):
        assert re.fullmatch(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/]+=*", image["src"] or "")
    for link in reader.all("a"):
        assert re.fullmatch(r"#q\d+", link["href"] or "")
    for attrs in (attrs for _, attrs in reader.tags if "style" in attrs):
        assert re.fullmatch(r"((left|top|width|height):[\d.]+(%|px)?;?|--at:#[0-9a-f]{6};?)+", attrs["style"] or "")
    return reader


def test_each_hit_is_a_card_with_its_evidence(page: ReportPage) -> None:
    reader = assert_inert(render_html(page))
    cards = reader.all("li", "hit")
    assert len(cards) == 5
    assert len(reader.all("li", "right")) == 1
    assert len(reader.all("span", "region")) == 2
    assert len(reader.all("span", "wrong")) == 1
    assert reader.text.count("key") == 2
    assert [attrs["style"] for attrs in reader.all("i")] == ["left:32.14%", "left:42.86%"]
    text = " ".join(reader.text)
    for shown in ("scene.png", "0.900", "a square", "page 7", "0:04.0 to 0:07.0", "of 0:14.0", "No preview"):
        assert shown in text
    for folded in ("(0, 0) to (500, 500)", "2 at 0:04.5, 5 at 0:06.0", "unclosed_answer: no end", "1 fault"):
        assert folded in text


def test_the_head_of_the_page_shows_facts_table_and_notes(page: ReportPage) -> None:
    text = " ".join(Reader(render_html(page)).text)
    for shown in ("Shapes", "indexed", "260", "text to image", "0.92", "over 60 queries", "seed 1", "direct: fourth"):
        assert shown in text


def test_queries_are_listed_with_how_they_ended(page: ReportPage) -> None:
    reader = Reader(render_html(page))
    assert [link["class"] for link in reader.all("a")] == ["right", "wrong"]
    assert "Nothing was found." in reader.text
    assert not Reader(render_html(replace(page, queries=page.queries[:1]))).all("a")


def test_keywords_are_marked_in_queries_and_texts(page: ReportPage) -> None:
    document = render_html(page)
    assert "the <mark>red square</mark>" in document
    assert "A <mark>red square</mark>, redder than <mark>red</mark>." in document


def test_every_picture_has_words_and_true_pixels(page: ReportPage) -> None:
    images = Reader(render_html(page)).all("img")
    assert len(images) == 1 + (1 + 6) + 1 + 1
    assert images[0]["alt"] == "image 1 of hit 1, scene.png, 2 regions marked"
    assert images[1]["alt"] == "frame 2 of hit 2, clip.mp4 at 0:04.5"
    for image in images:
        assert image["alt"]
        decoded = PIL.Image.open(io.BytesIO(base64.b64decode((image["src"] or "").partition(",")[2])))
        assert decoded.size == (int(image["width"] or 0), int(image["height"] or 0))
    first = PIL.Image.open(io.BytesIO(base64.b64decode((images[0]["src"] or "").partition(",")[2])))
    assert first.getpixel((0, 0)) == (255, 0, 0)
    assert first.getpixel((first.width - 1, 0)) == (255, 255, 255)


def test_boxes_lie_where_the_trace_says() -> None:
    image = PIL.Image.new("RGB", (400, 200))
    boxes = (Box(100, 250, 600, 750), Box(-50, 0, 2000, 1000), Box(5, 5, 5, 9), Box(0, 0, 10, 10, image=1))
    hit = ReportHit("a.png", "image", 1.0, images=(image,), trace=TCot(boxes=boxes))
    styles = [region["style"] or "" for region in Reader(render_html(one_hit(hit))).all("span", "region")]
    assert [style.rpartition(";")[0] for style in styles] == [
        "left:10.0%;top:25.0%;width:50.0%;height:50.0%",
        "left:0.0%;top:0.0%;width:100.0%;height:100.0%",
    ]


def test_key_frames_count_in_the_first_video(clip: Frames) -> None:
    hit = ReportHit("a.mp4", "video", 1.0, videos=(clip, clip), trace=TCot(key_frames=(2, 7, 0)))
    reader = Reader(render_html(one_hit(hit)))
    assert len(reader.all("ol", "strip")) == 2
    assert [len(reader.all("li", "key")), len(reader.all("p", "key"))] == [1, 1]


def test_large_pictures_are_made_small() -> None:
    noise = PIL.Image.effect_noise((3000, 2000), 80)
    document = render_html(one_hit(ReportHit("a.jpg", "image", 1.0, images=(noise,))))
    (image,) = Reader(document).all("img")
    assert (image["width"], image["height"]) == ("600", "400")
    assert len(document) < 400_000


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I", "I;16", "F", "HSV", "YCbCr"])
def test_pictures_of_any_mode_are_shown(mode: str) -> None:
    hit = ReportHit("a.png", "image", 1.0, images=(PIL.Image.new(mode, (9, 5)),))
    assert len(assert_inert(render_html(one_hit(hit))).all("img")) == 1


@pytest.mark.parametrize("size", [(0, 0), (0, 5)])
def test_a_picture_without_pixels_is_left_out(size: tuple[int, int]) -> None:
    frames = Frames((PIL.Image.new("RGB", size),), (0.0,), 1.0)
    hit = ReportHit("a.png", "image", 1.0, images=(PIL.Image.new("RGB", size),), videos=(frames,))
    reader = assert_inert(render_html(one_hit(hit)))
    assert not reader.all("img")
    assert "No preview" in reader.text


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 1)])
def test_pictures_of_any_shape_are_shown(size: tuple[int, int]) -> None:
    reader = assert_inert(render_html(one_hit(ReportHit("a.png", "image", 1.0, images=(PIL.Image.new("RGB", size),)))))
    assert len(reader.all("img")) == 1


@pytest.mark.parametrize(
    ("scores", "shares"),
    [
        ((0.8, 0.2), ["100.0%", "25.0%"]),
        ((0.5, -0.5), ["100.0%", "0.0%"]),
        ((-0.1, -0.5), ["0.0%", "0.0%"]),
        ((float("nan"), 0.5), ["0.0%", "100.0%"]),
        ((float("inf"), float("-inf")), ["0.0%", "0.0%"]),
    ],
)
def test_score_bars_are_relative_to_the_best(scores: tuple[float, ...], shares: list[str]) -> None:
    hits = tuple(ReportHit("a", "text", score) for score in scores)
    document = render_html(ReportPage("t", (ReportQuery("q", hits),)))
    assert re.findall(r'style="left:0;width:([\d.]+%)"', document) == shares


@pytest.mark.parametrize(("start", "end"), [(None, None), (5.0, 5.0), (6.0, 5.0), (-1.0, 2.0), (0.0, float("inf"))])
def test_a_stretch_that_makes_no_sense_has_no_timeline(start: float | None, end: float | None) -> None:
    hit = ReportHit("a.mp4", "video", 1.0, start_s=start, end_s=end)
    assert 'class="bar"><span style="left:0' not in render_html(one_hit(hit)).partition("score")[0]
    assert_inert(render_html(one_hit(hit)))


EVIL = (
    "<script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</title></head><body onload=alert(1)>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x="',
    "' style='position:fixed",
    "javascript:alert(1)",
    "<a href='https://example.com'>click</a>",
    "<!--",
    "-->",
    "]]>",
    "&lt;script&gt;",
    "&#x3c;script>",
    "{{ 7 * 7 }} {% raw %} {# gone #}",
    "<link rel=stylesheet href=//example.com/x.css>",
    "\u202egpj.exe",
    "\u2066x\u2069",
    "\x00\x08\x1b[31m\x7f\x9b",
    "caf\udce9.png",
    "\ufeff\u200b",
    "\ud83d alone",
    "<details open ontoggle=alert(1)>",
    "</bdi></li></ol></section>",
)


@pytest.mark.parametrize("text", EVIL)
def test_whatever_a_text_holds_is_shown_as_text(text: str, tmp_path: Path) -> None:
    plain, evil = everywhere("harmless"), everywhere(text)
    written = write_html(evil, tmp_path / "report.html").read_text(encoding="utf-8")
    reader, expected = assert_inert(written), assert_inert(render_html(plain))
    shape = [(tag, sorted(attrs)) for tag, attrs in reader.tags if tag != "mark"]
    assert shape == [(tag, sorted(attrs)) for tag, attrs in expected.tags if tag != "mark"]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]", written)
    if text.isprintable() and text == " ".join(text.split()):
        assert sum(text in piece for piece in "".join(reader.text).split("\n")) > 5


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(), max_size=40))
def test_no_text_breaks_the_page(text: str) -> None:
    document = render_html(everywhere(text))
    assert_inert(document)
    document.encode("utf-8")


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(st.builds(Box, *[st.integers(-2000, 3000)] * 4, image=st.integers(-1, 3)), max_size=5),
    key_frames=st.lists(st.integers(-3, 12), max_size=5),
    times=st.floats(),
)
def test_no_evidence_breaks_the_page(boxes: list[Box], key_frames: list[int], times: float) -> None:
    frames = Frames((PIL.Image.new("RGB", (4, 4)),) * 3, (0.0, times, 2.0), 3.0)
    trace = TCot(boxes=tuple(boxes), key_frames=tuple(key_frames))
    image = PIL.Image.new("RGB", (8, 6))
    hit = ReportHit(
        "a", "video", times, images=(image, image), videos=(frames,), trace=trace, start_s=times, end_s=times + 1
    )
    assert_inert(render_html(one_hit(hit)))


def test_nothing_comes_from_outside(page: ReportPage) -> None:
    document = render_html(page)
    assert document.startswith("<!doctype html>")
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in document
    assert not re.search(r"https?:|@import|url\(|<script|<link|<iframe|<object|srcset", document, re.IGNORECASE)


def test_an_empty_report_is_a_page() -> None:
    reader = assert_inert(render_html(ReportPage("Nothing yet")))
    assert "Nothing yet" in reader.text
    assert not reader.all("section")


def test_the_file_is_written_into_a_new_folder_and_replaced(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "report.html"
    assert write_html(ReportPage("first"), target) == target
    write_html(ReportPage("second \U0001f600 Ω"), str(target))
    text = target.read_text(encoding="utf-8")
    assert "second \U0001f600 Ω" in text
    assert "first<" not in text
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on what a process may write")
def test_a_disk_that_is_full_leaves_the_report_that_was_there(tmp_path: Path) -> None:
    import resource
    import signal

    target = write_html(ReportPage("first"), tmp_path / "report.html")
    before = target.read_bytes()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(InputError, match="cannot write the report"):
            write_html(ReportPage("second"), target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_a_place_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for target in (tmp_path, tmp_path / "file" / "report.html"):
        with pytest.raises(InputError) as caught:
            write_html(ReportPage("t"), target)
        assert "cannot write the report" in caught.value.message
        assert caught.value.hint


def one_hit(hit: ReportHit) -> ReportPage:
    """A page with a single hit."""
    return ReportPage("t", (ReportQuery("q", (hit,)),))


def everywhere(text: str) -> ReportPage:
    """A page with the same text in every place that takes one."""
    trace = TCot(text, text, text, keywords=(text, "x"), problems=(Problem(text, text),), raw=text)
    image = PIL.Image.new("RGB", (4, 4))
    hit = ReportHit(f"a {text}", "text", 0.5, text=f"t {text}", images=(image,), trace=trace)
    query = ReportQuery(
        f"q {text}", (hit,), trace=replace(trace, answer=f"a {text}"), task=f"t {text}", note=f"n {text}"
    )
    table = ReportTable((text,), ((text,),), f"c {text}")
    return ReportPage(f"p {text}", (query, query), ((text, text),), table, (text,))
