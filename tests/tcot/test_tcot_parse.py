"""Parsing: what models write instead of the form, and that every deviation has its name."""

from __future__ import annotations

import pytest

from ume_retrieval import TCot
from ume_retrieval.tcot import PROBLEMS, Box, is_usable, parse, validate

CLEAN = '<thinking>A cat. {"bbox_2d": [[40, 40, 293, 293]]}</thinking><rethink>Yes.</rethink><answer>cat</answer>'


def names(tcot: TCot) -> list[str]:
    return [problem.name for problem in tcot.problems]


def with_cue(cue: str, **limits: int) -> TCot:
    return parse(f"<thinking>See. {cue}</thinking><rethink>Yes.</rethink><answer>cat</answer>", **limits)


def test_a_clean_trace_has_no_problems() -> None:
    assert parse(CLEAN) == TCot("A cat.", "Yes.", "cat", boxes=(Box(40, 40, 293, 293),), raw=CLEAN)


def test_white_space_between_and_inside_blocks_is_no_problem() -> None:
    spaced = (
        CLEAN.replace("><", ">\n\n<").replace("<answer>", "<answer>\n  ").replace("</thinking>", "\n</thinking >\n")
    )
    tcot = parse(spaced + "\n")
    assert (tcot.thinking, tcot.rethink, tcot.answer, names(tcot)) == ("A cat.", "Yes.", "cat", [])


class TestBlocks:
    @pytest.mark.parametrize(
        ("text", "expected", "problems"),
        [
            ("", ("", "", ""), ["missing_thinking", "missing_rethink", "missing_answer"]),
            ("a cat", ("a cat", "", ""), ["missing_thinking", "missing_rethink", "missing_answer"]),
            (
                "<thinking>t <rethink>r <answer>a",
                ("t", "r", "a"),
                ["unclosed_thinking", "unclosed_rethink", "unclosed_answer"],
            ),
            (
                "<thinking>t</thinking><rethink>r</rethink><answer>half an ans",
                ("t", "r", "half an ans"),
                ["unclosed_answer"],
            ),
            ("t</thinking><rethink>r</rethink><answer>a</answer>", ("t", "r", "a"), ["unopened_thinking"]),
            ("t <rethink>r</rethink><answer>a</answer>", ("t", "r", "a"), ["missing_thinking"]),
            ("<thinking>t</thinking><answer>a</answer>", ("t", "", "a"), ["missing_rethink"]),
            ("<answer>a</answer><rethink>r</rethink><thinking>t</thinking>", ("t", "r", "a"), ["out_of_order"]),
            (
                "<think>t</think><rethink>r</rethink><ANSWER>a</ANSWER>",
                ("t", "r", "a"),
                ["tag_variant"],
            ),
            ("<thought>t</thought><rethink>r</rethink><answer>a</answer>", ("t", "r", "a"), ["tag_variant"]),
            (
                "<thinking>t</rethink> more</thinking><rethink>r</rethink><answer>a</answer>",
                ("t  more", "r", "a"),
                ["stray_tag"],
            ),
            (
                "<thinking>t</thinking></thinking><rethink>r</rethink><answer>a</answer>",
                ("t", "r", "a"),
                ["stray_tag"],
            ),
            (
                "Sure! <thinking>t</thinking><rethink>r</rethink><answer>a</answer> Done.",
                ("t", "r", "a"),
                ["text_outside"],
            ),
            (
                "```xml\n<thinking>t</thinking><rethink>r</rethink><answer>a</answer>\n```",
                ("t", "r", "a"),
                ["code_fence"],
            ),
            (
                "<thinking>t</thinking><rethink>r</rethink><answer>a</answer><answer>b</answer>",
                ("t", "r", "a"),
                ["repeated_answer"],
            ),
        ],
    )
    def test_deviations_are_read_and_named(
        self, text: str, expected: tuple[str, str, str], problems: list[str]
    ) -> None:
        tcot = parse(text)
        assert (tcot.thinking, tcot.rethink, tcot.answer) == expected
        assert sorted(names(tcot)) == sorted(problems)

    def test_the_right_spelling_beats_a_native_think_block(self) -> None:
        tcot = parse("<think>hidden</think><thinking>t</thinking><rethink>r</rethink><answer>a</answer>")
        assert tcot.thinking == "t"
        assert names(tcot) == ["tag_variant", "repeated_thinking"]

    def test_an_empty_repetition_does_not_hide_what_was_said(self) -> None:
        assert parse("<answer></answer><answer>cat</answer>").answer == "cat"

    def test_a_runaway_second_trace_changes_nothing(self) -> None:
        tcot = parse(CLEAN + CLEAN.replace("cat", "dog"))
        assert (tcot.answer, tcot.boxes) == ("cat", (Box(40, 40, 293, 293),))
        assert set(names(tcot)) == {"repeated_thinking", "repeated_rethink", "repeated_answer"}

    def test_letters_that_only_look_like_a_tag_are_words(self) -> None:
        assert parse("<thin\u212aing>x</thinking>").thinking.startswith("<thin")


class TestCuePlace:
    def test_released_code_error_an_earlier_brace_loses_the_cue(self) -> None:
        tcot = with_cue('The set {a, b} and {"x": 1} [see]. {"bbox_2d": [[1, 2, 3, 4]]}')
        assert tcot.boxes == (Box(1, 2, 3, 4),)
        assert tcot.thinking == 'See. The set {a, b} and {"x": 1} [see].'
        assert names(tcot) == []

    @pytest.mark.parametrize(
        "before", ["{", "[", '{"a', "{'a': ", "it's {odd", '["open, and ', "{{", "[[", "{[", "f(x) = {"]
    )
    def test_unbalanced_braces_before_the_cue_do_not_hide_it(self, before: str) -> None:
        assert with_cue(before + ' {"bbox_2d": [[1, 2, 3, 4]]}').boxes == (Box(1, 2, 3, 4),)

    def test_words_after_the_cue_stay(self) -> None:
        assert with_cue('{"key_frames": [1]} and so on.').thinking == "See. and so on."

    def test_the_last_cue_counts_when_words_stand_between(self) -> None:
        tcot = with_cue('{"key_frames": [1, 2]} No, rather {"key_frames": [3]}')
        assert (tcot.key_frames, names(tcot), tcot.thinking) == ((3,), ["repeated_cue"], "See. No, rather")

    def test_a_broken_repetition_does_not_replace_a_whole_cue(self) -> None:
        tcot = with_cue('{"key_frames": [1, 2]} again: {"key_frames": [3, x')
        assert tcot.key_frames == (1, 2)
        assert set(names(tcot)) == {"repeated_cue", "broken_json"}

    def test_cues_of_several_kinds_are_all_kept(self) -> None:
        tcot = with_cue('{"text_keywords": ["a"]} and {"key_frames": [2], "bbox_2d": [1, 2, 3, 4]}')
        assert (tcot.keywords, tcot.key_frames, tcot.boxes) == (("a",), (2,), (Box(1, 2, 3, 4),))

    @pytest.mark.parametrize(
        "text",
        [
            '<thinking>t</thinking>{"key_frames": [2]}<rethink>r</rethink><answer>a</answer>',
            '<thinking>t</thinking><rethink>r {"key_frames": [2]}</rethink><answer>a</answer>',
            '<thinking>t</thinking><rethink>r</rethink><answer>{"key_frames": [2]}</answer>',
            '{"key_frames": [2]}<thinking>t</thinking><rethink>r</rethink><answer>a</answer>',
        ],
    )
    def test_a_cue_outside_the_thinking_is_read_when_the_thinking_has_none(self, text: str) -> None:
        tcot = parse(text)
        assert (tcot.key_frames, tcot.thinking, names(tcot)) == ((2,), "t", ["cue_outside_thinking"])

    def test_json_in_the_answer_is_left_alone_when_the_thinking_has_a_cue(self) -> None:
        answer = '{"bbox_2d": [[5, 5, 6, 6]]}'
        tcot = parse(CLEAN.replace("<answer>cat", "<answer>" + answer))
        assert (tcot.answer, tcot.boxes, names(tcot)) == (answer, (Box(40, 40, 293, 293),), [])

    def test_a_bare_cue_without_any_tag_is_read(self) -> None:
        assert parse('{"text_keywords": ["red", "circle"]}').keywords == ("red", "circle")

    def test_nested_in_another_object(self) -> None:
        tcot = with_cue('{"evidence": {"bbox_2d": [[1, 2, 3, 4]]}, "sure": true}')
        assert (tcot.boxes, tcot.thinking, names(tcot)) == ((Box(1, 2, 3, 4),), "See.", [])


class TestCueJson:
    @pytest.mark.parametrize(
        "cue",
        [
            "{'bbox_2d': [[1, 2, 3, 4]]}",
            '{"bbox_2d": [[1, 2, 3, 4],]}',
            '{"bbox_2d": [[1, 2, 3, 4]],}',
            "{bbox_2d: [[1, 2, 3, 4]]}",
            "{'label': 'it\\'s', 'bbox_2d': [[1, 2, 3, 4]]}",
            '{"ok": True, "bbox_2d": [[1, 2, 3, 4]]}',
        ],
    )
    def test_loose_json_is_read_and_named(self, cue: str) -> None:
        tcot = with_cue(cue)
        assert (tcot.boxes, tcot.thinking, names(tcot)) == ((Box(1, 2, 3, 4),), "See.", ["loose_json"])

    @pytest.mark.parametrize(
        "cue",
        [
            '"bbox_2d": [[1, 2, 3, 4]]',
            "bbox_2d: [[1, 2, 3, 4]]",
            '{"bbox_2d": [[1, 2, 3, 4]}',
            '{"bbox_2d": [[1, 2, 3, 4]]',
            '{"bbox_2d": [[1, 2, 3, 4]] "label": "x"}',
        ],
    )
    def test_broken_json_is_used_as_far_as_it_goes(self, cue: str) -> None:
        tcot = with_cue(cue)
        assert (tcot.boxes, names(tcot)) == ((Box(1, 2, 3, 4),), ["broken_json"])

    @pytest.mark.parametrize("fence", ["```json\n{}\n```", "```\n{}\n```", "``` json {} ```"])
    def test_code_fences_around_the_cue(self, fence: str) -> None:
        tcot = with_cue(fence.replace("{}", '{"bbox_2d": [[1, 2, 3, 4]]}'))
        assert (tcot.boxes, tcot.thinking, names(tcot)) == ((Box(1, 2, 3, 4),), "See.", ["code_fence"])

    def test_generation_cut_off_inside_the_cue(self) -> None:
        tcot = parse('<thinking>Two. {"bbox_2d": [[1, 2, 3, 4], [5, 6, 70, 8')
        assert (tcot.thinking, tcot.boxes) == ("Two.", (Box(1, 2, 3, 4),))
        assert {"unclosed_thinking", "broken_json", "bad_box"} <= set(names(tcot))

    def test_generation_cut_off_inside_a_string(self) -> None:
        tcot = parse('<thinking>Two. {"text_keywords": ["red circle", "blu')
        assert (tcot.thinking, tcot.keywords) == ("Two.", ("red circle",))

    def test_several_fenced_cues_are_one(self) -> None:
        fenced = '```json\n{"bbox_2d": [1, 2, 3, 4]}\n```\n'
        tcot = with_cue(fenced + fenced.replace("3, 4", "5, 6") + "Done.")
        assert (tcot.boxes, tcot.thinking) == ((Box(1, 2, 3, 4), Box(1, 2, 5, 6)), "See. Done.")
        assert names(tcot) == ["code_fence"]

    def test_a_number_that_the_end_may_have_cut_is_not_believed(self) -> None:
        assert parse('<thinking>t {"key_frames": [3, 1').key_frames == (3,)
        assert parse('<thinking>t {"key_frames": [3, 1,').key_frames == (1, 3)

    def test_strings_are_unescaped(self) -> None:
        tcot = with_cue(r'{"text_keywords": ["\u7ea2", "\ud83d\ude00", "\ud83d", "a\"b", "c\\d", "{x}"]}')
        assert tcot.keywords == ("红", "😀", "\ufffd", 'a"b', "c\\d", "{x}")
        assert names(tcot) == []


class TestBoxes:
    def test_released_code_error_a_flat_box_crashes(self) -> None:
        tcot = with_cue('{"bbox_2d": [1, 2, 3, 4]}')
        assert (tcot.boxes, names(tcot)) == ((Box(1, 2, 3, 4),), [])

    def test_released_code_error_only_the_first_of_several_images_can_be_cropped(self) -> None:
        tcot = with_cue('{"bbox_2d": [[[1, 2, 3, 4], [5, 6, 7, 8]], [], [[9, 10, 11, 12]]]}', images=3)
        assert tcot.boxes == (Box(1, 2, 3, 4, 0), Box(5, 6, 7, 8, 0), Box(9, 10, 11, 12, 2))
        assert names(tcot) == []

    def test_released_code_error_strings_as_numbers_crash(self) -> None:
        tcot = with_cue('{"bbox_2d": [["1", "2", 3, " 4 "]], "key_frames": ["2", "x"]}')
        assert (tcot.boxes, tcot.key_frames) == ((Box(1, 2, 3, 4),), (2,))
        assert names(tcot) == ["number_as_string", "bad_frame"]

    def test_one_box_an_image_without_a_list_around_each(self) -> None:
        assert with_cue('{"bbox_2d": [[1, 2, 3, 4], [[5, 6, 7, 8]]]}', images=2).boxes == (
            Box(1, 2, 3, 4, 0),
            Box(5, 6, 7, 8, 1),
        )

    @pytest.mark.parametrize(
        "cue",
        [
            '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"label": "b", "bbox_2d": [5, 6, 7, 8]}]',
            '{"bbox_2d": [1, 2, 3, 4], "label": "a"}\n{"bbox_2d": [5, 6, 7, 8], "label": "b"}',
            '{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8]}',
            '{"bbox_2d": [{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6, 7, 8]}]}',
            '{"objects": [{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8]}]}',
        ],
    )
    def test_lists_of_objects_as_qwen3_vl_writes_them(self, cue: str) -> None:
        tcot = with_cue(cue)
        assert tcot.boxes == (Box(1, 2, 3, 4), Box(5, 6, 7, 8))
        assert names(tcot) == []
        assert tcot.thinking == "See."

    @pytest.mark.parametrize(
        ("box", "expected", "problem"),
        [
            ("[3, 4, 1, 2]", (Box(1, 2, 3, 4),), "swapped_corners"),
            ("[-5, 0, 10, 2000]", (Box(0, 0, 10, 1000),), "box_out_of_range"),
            (f"[0, 0, 1{'0' * 5000}, 1e999]", (Box(0, 0, 1000, 1000),), "box_out_of_range"),
            ("[0, 0, Infinity, 5]", (Box(0, 0, 1000, 5),), "box_out_of_range"),
            ("[5, 5, 5, 9]", (), "degenerate_box"),
            ("[1200, 0, 1300, 9]", (), "degenerate_box"),
            ("[0.1, 0.2, 0.5, 0.9]", (), "fractional_box"),
            ("[1.4, 2, 3.6, 4]", (Box(1, 2, 4, 4),), "number_rounded"),
            ("[1, 2, 3]", (), "bad_box"),
            ("[1, 2, 3, 4, 5]", (), "bad_box"),
            ("[1, 2, 3, NaN]", (), "bad_box"),
            ("[1, 2, 3, null]", (), "bad_box"),
            ("[true, false, true, true]", (), "bad_box"),
            ('"1, 2, 3, 4"', (), "bad_box"),
            ('{"x1": 1, "y1": 2, "x2": 3, "y2": 4}', (), "bad_box"),
            ("[[[[1, 2, 3, 4]]]]", (), "bad_box"),
        ],
    )
    def test_what_is_wrong_with_a_box_is_named(self, box: str, expected: tuple[Box, ...], problem: str) -> None:
        tcot = with_cue(f'{{"bbox_2d": [{box}]}}')
        assert tcot.boxes == expected
        assert problem in names(tcot)

    def test_the_smallest_box_in_whole_numbers_is_no_fraction(self) -> None:
        assert with_cue('{"bbox_2d": [0, 0, 1, 1]}').boxes == (Box(0, 0, 1, 1),)

    def test_boxes_on_images_that_are_not_there_are_dropped(self) -> None:
        tcot = with_cue('{"bbox_2d": [[[1, 2, 3, 4]], [[5, 6, 7, 8]]]}', images=1)
        assert (tcot.boxes, names(tcot)) == ((Box(1, 2, 3, 4),), ["box_image_out_of_range"])
        assert with_cue('{"bbox_2d": [1, 2, 3, 4]}', images=0).boxes == ()

    def test_dropped_boxes_are_counted(self) -> None:
        tcot = with_cue('{"bbox_2d": [[5, 5, 5, 9], [1, 2, 3, 4], [6, 6, 6, 6]]}')
        assert tcot.boxes == (Box(1, 2, 3, 4),)
        assert [(p.name, p.detail) for p in tcot.problems] == [("degenerate_box", "2 times, first: [5, 5, 5, 9]")]

    def test_repeated_boxes_count_once(self) -> None:
        assert with_cue('{"bbox_2d": [[1, 2, 3, 4], [1, 2, 3, 4]]}').boxes == (Box(1, 2, 3, 4),)

    def test_too_many_values_are_cut_and_named(self) -> None:
        tcot = with_cue('{"key_frames": [' + ", ".join(str(n) for n in range(1, 101)) + "]}")
        assert (tcot.key_frames, names(tcot)) == (tuple(range(1, 65)), ["too_many_values"])


class TestKeyFrames:
    @pytest.mark.parametrize(
        ("values", "expected", "problems"),
        [
            ("[6, 5, 5]", (5, 6), []),
            ("[0, 1, 8, 9]", (1, 8), ["frame_out_of_range"]),
            ("[-3, 1e30, 2]", (2,), ["frame_out_of_range"]),
            ('["2", "3.0"]', (2, 3), ["number_as_string"]),
            ("[2.0, 3]", (2, 3), []),
            ("[2.5]", (2,), ["number_rounded"]),
            ("[NaN, 3]", (3,), ["loose_json", "bad_frame"]),
            ("[Infinity, 3]", (3,), ["loose_json", "frame_out_of_range"]),
            ('[true, "two", null, 3]', (3,), ["bad_frame"]),
            ("4", (4,), ["odd_shape"]),
            ("[[1, 2], [3]]", (1, 2, 3), ["odd_shape"]),
        ],
    )
    def test_released_code_error_key_frames_are_read_one_based(
        self, values: str, expected: tuple[int, ...], problems: list[str]
    ) -> None:
        tcot = with_cue(f'{{"key_frames": {values}}}', frames=8)
        assert (tcot.key_frames, names(tcot)) == (expected, problems)

    def test_without_a_count_any_sensible_frame_is_kept(self) -> None:
        assert with_cue('{"key_frames": [0, 7, 4000, 1e300, Infinity]}').key_frames == (7, 4000)


class TestKeywords:
    @pytest.mark.parametrize(
        ("values", "expected", "problems"),
        [
            ('[" red circle ", "", "blue", "blue", "  "]', ("red circle", "blue"), []),
            ('[1999, 1.5, "x"]', ("1999", "1.5", "x"), ["keyword_not_string"]),
            ('[true, null, {"a": 1}, NaN, "x"]', ("x",), ["loose_json", "keyword_not_string"]),
            ('"one"', ("one",), ["odd_shape"]),
            ('[["a", "b"], "c"]', ("a", "b", "c"), ["odd_shape"]),
        ],
    )
    def test_reading(self, values: str, expected: tuple[str, ...], problems: list[str]) -> None:
        tcot = with_cue(f'{{"text_keywords": {values}}}')
        assert (tcot.keywords, names(tcot)) == (expected, problems)


class TestValidate:
    @pytest.mark.parametrize(
        ("modality", "missing"),
        [("text", "missing_keywords"), ("image", "missing_boxes"), ("video", "missing_key_frames")],
    )
    def test_each_modality_needs_its_cue(self, modality: str, missing: str) -> None:
        whole = TCot("t", "r", "a", keywords=("k",), boxes=(Box(0, 0, 1, 1),), key_frames=(1,))
        assert validate(whole, modality) == ()  # type: ignore[arg-type]  # parametrised over the literal's values
        problems = validate(TCot("t", "r", "a"), modality)  # type: ignore[arg-type]
        assert [problem.name for problem in problems] == [missing]

    def test_blocks_need_words(self) -> None:
        problems = validate(TCot(" ", "", "\n", keywords=("k",)), "text")
        assert [problem.name for problem in problems] == ["empty_thinking", "empty_rethink", "empty_answer"]

    def test_usable_means_words(self) -> None:
        assert is_usable(TCot(answer="a"))
        assert is_usable(TCot(thinking="t"))
        assert not is_usable(TCot(thinking=" ", rethink="r", keywords=("k",)))


def test_every_problem_has_a_one_line_meaning() -> None:
    for name, meaning in PROBLEMS.items():
        assert name.isidentifier()
        assert meaning
        assert "\n" not in meaning
