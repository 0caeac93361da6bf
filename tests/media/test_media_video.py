from __future__ import annotations

import errno
import io
import math
from fractions import Fraction
from pathlib import Path

import av
import av.error
import media_makers
import numpy as np
import PIL.Image
import pytest
from av.stream import Disposition
from media_makers import number_of, numbered, write_gif, write_numbered, write_video
from PIL.Image import Transpose

from ume_retrieval import Clip, Frames, InputError, Limits
from ume_retrieval.errors import BrokenMedia, MediaNotFound, MediaTooLarge, UnsupportedMedia
from ume_retrieval.media import probe_video, sample_video
from ume_retrieval.media.pyav_film import _typed_errors

CONTAINERS = [
    *("mp4", "mov", "mkv", "webm", "avi", "h264.avi", "gif", "ts", "m2ts", "wmv", "flv", "ogv", "ivf", "y4m"),
    *("webp", "png", "avif"),
]


def numbers(frames: Frames) -> list[int]:
    return [number_of(image) for image in frames.images]


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_is_probed(films: dict[str, Path], container: str) -> None:
    info = probe_video(films[container])
    assert (info.width, info.height, info.fps) == (160, 96, 10.0)
    assert info.duration_s == pytest.approx(4.0, abs=1e-3)


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_frame_comes_at_its_time(films: dict[str, Path], container: str) -> None:
    frames = sample_video(films[container], fps=10, max_frames=100)
    assert numbers(frames) == list(range(40))
    assert frames.timestamps == pytest.approx([k / 10 for k in range(40)])
    assert frames.duration_s == pytest.approx(4.0, abs=1e-3)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_clip_is_sampled_from_its_own_start(films: dict[str, Path], container: str) -> None:
    frames = sample_video(Clip(films[container], 1.25, 3.0), fps=2, max_frames=8)
    assert frames.timestamps == (1.25, 1.75, 2.25, 2.75)
    assert numbers(frames) == [12, 17, 22, 27]
    assert frames.duration_s == pytest.approx(1.75)


@pytest.mark.parametrize("container", CONTAINERS)
def test_any_start_is_reached_from_its_keyframe(films: dict[str, Path], container: str) -> None:
    for number in (3, 9, 11, 12, 13, 14, 23, 24, 25, 37, 39):
        clip = Clip(films[container], number / 10, number / 10 + 0.1)
        assert numbers(sample_video(clip, fps=10, max_frames=8)) == [number]


def test_too_many_frames_are_thinned_evenly(films: dict[str, Path]) -> None:
    frames = sample_video(films["mp4"], fps=10, max_frames=4)
    assert numbers(frames) == [0, 13, 26, 39]


def test_a_clip_beyond_the_end_is_cut_to_it(films: dict[str, Path]) -> None:
    frames = sample_video(Clip(films["mkv"], 3.5, 99.0), fps=2, max_frames=8)
    assert numbers(frames) == [35]
    assert frames.duration_s == pytest.approx(0.5, abs=1e-3)


def test_a_clip_after_the_end_is_not_there(films: dict[str, Path]) -> None:
    with pytest.raises(MediaNotFound, match=r"ends before second 4\.5"):
        sample_video(Clip(films["mp4"], 4.5), fps=2, max_frames=8)


@pytest.mark.parametrize(("start", "end"), [(-1.0, None), (2.0, 2.0), (2.0, 1.0)])
def test_a_clip_that_is_no_stretch_is_refused(films: dict[str, Path], start: float, end: float | None) -> None:
    with pytest.raises(InputError):
        sample_video(Clip(films["mp4"], start, end), fps=2, max_frames=8)


UNEVEN_MS = [0, 40, 500, 540, 580, 1700, 1710, 2900, 3000, 3333]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_variable_frame_rate_goes_by_the_timestamps(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"uneven{suffix}"
    write_numbered(path, len(UNEVEN_MS), times_ms=UNEVEN_MS)
    frames = sample_video(Clip(path, 0.0, 3.34), fps=20, max_frames=100)
    on_screen = [max(k for k, ms in enumerate(UNEVEN_MS) if ms <= round(1000 * t)) for t in frames.timestamps]
    assert numbers(frames) == on_screen
    assert set(on_screen) == set(range(9))


def test_a_gif_with_uneven_delays_goes_by_them(tmp_path: Path) -> None:
    path = tmp_path / "uneven.gif"
    write_gif(path, 4, [100, 700, 200, 1000])
    assert probe_video(path).duration_s == pytest.approx(2.0)
    frames = sample_video(path, fps=5, max_frames=100)
    assert numbers(frames) == [0, 1, 1, 1, 2, 3, 3, 3, 3, 3]


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotated_and_mirrored_videos_come_upright(tmp_path: Path, degrees: int, flips: tuple[bool, bool]) -> None:
    def stored(picture: PIL.Image.Image) -> PIL.Image.Image:
        """Undo what the player is told: to turn counterclockwise, then to mirror."""
        if flips[0]:
            picture = picture.transpose(Transpose.FLIP_LEFT_RIGHT)
        if flips[1]:
            picture = picture.transpose(Transpose.FLIP_TOP_BOTTOM)
        return picture.rotate(-degrees, expand=True)

    path = tmp_path / "turned.mp4"
    write_video(path, [stored(numbered(k)) for k in range(6)], matrix=(degrees, *flips))
    assert numbers(sample_video(path, fps=10, max_frames=6)) == [0, 1, 2, 3, 4, 5]
    info = probe_video(path)
    assert (info.width, info.height) == (160, 96)


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    path = tmp_path / "anamorphic.mkv"
    write_numbered(path, 3, sample_aspect=Fraction(3, 2))
    frames = sample_video(path, fps=10, max_frames=3)
    assert [image.size for image in frames.images] == [(240, 96)] * 3
    assert numbers(frames) == [0, 1, 2]


@pytest.mark.parametrize("size", [(16, 16), (96, 96), (98, 50)])
def test_small_and_odd_sizes_decode(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "small.mp4"
    write_video(path, [numbered(k, *size) for k in range(4)])
    frames = sample_video(path, fps=10, max_frames=4)
    assert [image.size for image in frames.images] == [size] * 4


def test_transparency_of_a_gif_is_laid_on_white(tmp_path: Path) -> None:
    path = tmp_path / "ghost.gif"
    picture = PIL.Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 10, 20))
    picture.save(path, save_all=True, append_images=[picture.transpose(Transpose.FLIP_LEFT_RIGHT)], disposal=2)
    first, second = sample_video(path, fps=10, max_frames=2).images
    assert (first.getpixel((2, 2)), first.getpixel((17, 2))) == ((255, 0, 0), (255, 255, 255))
    assert (second.getpixel((2, 2)), second.getpixel((17, 2))) == ((255, 255, 255), (255, 0, 0))


def test_one_frame_is_a_video_too(tmp_path: Path) -> None:
    path = tmp_path / "one.gif"
    write_gif(path, 1)
    assert numbers(sample_video(path, fps=2, max_frames=8)) == [0]


def test_far_apart_times_are_reached_by_keyframes(tmp_path: Path) -> None:
    path, gapless = tmp_path / "keys.mp4", tmp_path / "gapless.mp4"
    write_numbered(path, 200, gop=5)
    write_numbered(gapless, 200, gop=1000)
    expected = [0, 66, 132, 198]
    few = Limits(max_frames=80)
    assert numbers(sample_video(path, fps=0.15151515, max_frames=8, limits=few)) == expected
    assert numbers(sample_video(gapless, fps=0.15151515, max_frames=8)) == expected
    with pytest.raises(MediaTooLarge, match="80 frames"):
        sample_video(gapless, fps=0.15151515, max_frames=8, limits=few)


def test_frames_next_to_each_other_are_drawn_once(films: dict[str, Path]) -> None:
    first, second, third = sample_video(Clip(films["mp4"], 1.0, 1.15), fps=20, max_frames=8).images
    assert first is second
    assert number_of(third) == 11


class _Pipe(io.RawIOBase):
    """What a live recorder writes to: nothing can be filled in later."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += data
        return len(data)


def test_a_live_recording_without_duration_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = _Pipe()
    write_numbered(pipe, 40, codec="libvpx", form="webm", muxing={"live": "1"})
    path = tmp_path / "live.webm"
    path.write_bytes(pipe.data)
    assert probe_video(path).duration_s == pytest.approx(4.0, abs=0.05)
    assert numbers(sample_video(path, fps=2, max_frames=8)) == [0, 5, 10, 15, 20, 25, 30, 35]


def test_a_fragmented_mp4_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "fragments.mp4"
    write_numbered(path, 40, muxing={"movflags": "frag_keyframe+empty_moov"})
    assert probe_video(path).duration_s == pytest.approx(4.0, abs=0.05)
    assert numbers(sample_video(path, fps=2, max_frames=8)) == [0, 5, 10, 15, 20, 25, 30, 35]


@pytest.mark.parametrize("suffix", [".mov", ".mkv"])
def test_sound_that_goes_on_does_not_make_the_video_longer(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"sound{suffix}"
    write_numbered(path, 20, sound_s=5.0)
    assert probe_video(path).duration_s == pytest.approx(2.0, abs=0.05)
    assert numbers(sample_video(path, fps=2, max_frames=99)) == [0, 5, 10, 15]


@pytest.mark.parametrize("cover", [False, True])
def test_sound_alone_is_no_video_even_with_a_cover(tmp_path: Path, cover: bool) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(path, "w") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 160, 96, "yuvj420p"
            picture.disposition = Disposition.attached_pic
            container.mux(picture.encode(av.VideoFrame.from_image(numbered(1))))
            container.mux(picture.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    with pytest.raises(UnsupportedMedia, match="no video stream"):
        probe_video(path)


def test_names_that_are_not_utf8_open(tmp_path: Path, films: dict[str, Path]) -> None:
    path = tmp_path / "caf\udce9 \x1b[31m.mp4"
    path.write_bytes(films["mp4"].read_bytes())
    assert numbers(sample_video(path, fps=1, max_frames=8)) == [0, 10, 20, 30]


def test_a_playlist_never_opens_what_it_names(tmp_path: Path, films: dict[str, Path]) -> None:
    path = tmp_path / "list.mp4"
    path.write_text(f"#EXTM3U\n#EXTINF:4,\n{films['mp4']}\n#EXT-X-ENDLIST\n", encoding="utf-8")
    with pytest.raises(UnsupportedMedia):
        probe_video(path)


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        (Limits(max_pixels=160 * 96 - 1), "160 x 96 pixels"),
        (Limits(max_bytes=1000), "bytes"),
        (Limits(max_duration_s=3.9), "lasts 4.0 s"),
        (Limits(max_frames=5), "5 frames"),
    ],
)
@pytest.mark.parametrize("container", ["webm", "gif"])
def test_limits_hold(films: dict[str, Path], container: str, limits: Limits, what: str) -> None:
    with pytest.raises(MediaTooLarge, match=what):
        sample_video(films[container], fps=2, max_frames=8, limits=limits)


def test_frames_pass_through_as_rgb() -> None:
    frames = Frames((PIL.Image.new("L", (4, 4), 7),) * 2, (0.0, 0.5), 1.0)
    checked = sample_video(frames, fps=9, max_frames=1)
    assert [image.mode for image in checked.images] == ["RGB", "RGB"]
    assert (checked.timestamps, checked.duration_s) == ((0.0, 0.5), 1.0)
    with pytest.raises(MediaTooLarge):
        sample_video(frames, fps=9, max_frames=1, limits=Limits(max_frames=1))


def test_frames_of_several_sizes_are_refused() -> None:
    frames = Frames((PIL.Image.new("RGB", (64, 64)), PIL.Image.new("RGB", (96, 32))), (0.0, 0.5), 1.0)
    with pytest.raises(InputError, match="64 x 64, 96 x 32") as caught:
        sample_video(frames, fps=2, max_frames=8)
    assert caught.value.hint


def test_frames_need_one_size_once_they_are_upright() -> None:
    lying, turned = PIL.Image.new("RGB", (96, 32)), PIL.Image.new("RGB", (32, 96))
    turned.getexif()[0x0112] = 6
    checked = sample_video(Frames((lying, turned), (0.0, 0.5), 1.0), fps=2, max_frames=8)
    assert [image.size for image in checked.images] == [(96, 32), (96, 32)]
    with pytest.raises(InputError, match="32 x 96, 96 x 32"):
        sample_video(Frames((turned, PIL.Image.new("RGB", (32, 96))), (0.0, 0.5), 1.0), fps=2, max_frames=8)


@pytest.mark.parametrize(
    ("times", "duration_s"),
    [
        ((0.0, math.nan), 1.0),
        ((0.0, math.inf), 1.0),
        ((-math.inf, 0.0), 1.0),
        ((-1e308, 1e308), 1.0),
        ((0.0, 0.5), math.nan),
        ((0.0, 0.5), math.inf),
    ],
)
def test_frames_without_a_finite_time_are_refused(times: tuple[float, float], duration_s: float) -> None:
    frames = Frames((numbered(1), numbered(2)), times, duration_s)
    with pytest.raises(InputError, match="cannot have the time") as caught:
        sample_video(frames, fps=2, max_frames=8)
    assert caught.value.hint


@pytest.mark.parametrize("container", ["mp4", "mkv", "webm"])
def test_frames_are_those_that_decord_sees(films: dict[str, Path], container: str) -> None:
    decord = pytest.importorskip("decord")
    frames = sample_video(films[container], fps=10, max_frames=100)
    reference = decord.VideoReader(str(films[container]), num_threads=1).get_batch(range(40)).asnumpy()
    ours = np.stack([np.asarray(image) for image in frames.images])
    assert np.abs(ours.astype(int) - reference.astype(int)).mean() < 3.0


def write_cut(tmp_path: Path, films: dict[str, Path], container: str, share: float) -> Path:
    if container == "faststart":
        whole = tmp_path / "faststart.mp4"
        write_numbered(whole, 40, muxing={"movflags": "faststart"})
    else:
        whole = films[container]
    data = whole.read_bytes()
    path = tmp_path / f"cut{whole.suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("container", ["mp4", "mov", "gif"])
def test_a_cut_file_of_which_nothing_decodes_is_broken_and_silent(
    tmp_path: Path, films: dict[str, Path], capfd: pytest.CaptureFixture[str], container: str, share: float
) -> None:
    with pytest.raises(BrokenMedia):
        probe_video(write_cut(tmp_path, films, container, share))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("container", ["mkv", "webm", "avi", "h264.avi", "faststart", "ts", "wmv", "flv"])
def test_a_cut_film_shows_what_is_there_and_says_so(
    tmp_path: Path, films: dict[str, Path], capfd: pytest.CaptureFixture[str], container: str, share: float
) -> None:
    path = write_cut(tmp_path, films, container, share)
    try:
        info = probe_video(path)
    except BrokenMedia:
        # The index at the front alone may take this much.
        assert share < 0.9
        return
    frames = sample_video(path, fps=10, max_frames=100)
    shown = numbers(frames)
    # Frames at the very end may lack one that they refer to; the one before stays on screen.
    assert shown[:-5] == list(range(len(shown)))[:-5]
    assert all(abs(one - index) <= 4 for index, one in enumerate(shown))
    assert 1 <= len(shown) <= 40
    assert info.duration_s == pytest.approx(len(shown) / 10, abs=0.1)
    declares_its_length = container not in ("ts", "wmv")  # in WMV only the index at the end may be missing
    assert not declares_its_length or "cut short" in info.warnings[0]
    assert set(info.warnings) <= set(frames.warnings)
    assert capfd.readouterr() == ("", "")


def test_damage_only_at_the_very_end_is_a_warning(tmp_path: Path, films: dict[str, Path]) -> None:
    frames = sample_video(write_cut(tmp_path, films, "wmv", 0.3), fps=10, max_frames=100)
    assert numbers(frames)[:8] == list(range(8))
    assert any("last frames" in warning for warning in frames.warnings)


def test_program_streams_of_mpeg_2_come_at_their_times(tmp_path: Path) -> None:
    for suffix in (".mpg", ".vob", ".mxf"):
        path = tmp_path / f"film{suffix}"
        write_numbered(path, 50, codec="mpeg2video", fps=25)
        assert numbers(sample_video(path, fps=25, max_frames=100)) == list(range(50)), suffix
        assert numbers(sample_video(Clip(path, 1.0, 1.2), fps=25, max_frames=100)) == [25, 26, 27, 28, 29], suffix


@pytest.mark.parametrize("container", ["mp4", "mov", "mkv"])
def test_bytes_gone_bad_inside_are_broken_and_silent(
    tmp_path: Path, films: dict[str, Path], capfd: pytest.CaptureFixture[str], container: str
) -> None:
    data = films[container].read_bytes()
    tenth = len(data) // 10
    path = tmp_path / f"hole.{container}"
    path.write_bytes(data[: 4 * tenth] + bytes(2 * tenth) + data[6 * tenth :])
    with pytest.raises(BrokenMedia):
        sample_video(path, fps=10, max_frames=100)
    assert capfd.readouterr() == ("", "")


def test_makers_agree_with_themselves() -> None:
    assert [number_of(numbered(k)) for k in range(256)] == list(range(256))
    with pytest.raises(AssertionError, match="lower left"):
        media_makers.number_of(numbered(1).transpose(Transpose.ROTATE_180))


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EAGAIN])
def test_what_the_machine_lacks_may_be_there_later(code: int) -> None:
    with pytest.raises(BrokenMedia) as lacking, _typed_errors("clip.mp4"):
        raise av.error.classes[code](code, "not to be had")
    assert lacking.value.retryable
    with pytest.raises(BrokenMedia) as broken, _typed_errors("clip.mp4"):
        raise av.error.InvalidDataError(errno.EINVAL, "damaged")
    assert not broken.value.retryable
