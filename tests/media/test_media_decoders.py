from __future__ import annotations

from pathlib import Path

import media_makers
import numpy as np
import pytest
from media_makers import number_of, write_numbered

from ume_retrieval import Clip, InputError, Item, Limits
from ume_retrieval.checkpoint import VisualBudget
from ume_retrieval.errors import MissingExtra
from ume_retrieval.media import load, sample_video
from ume_retrieval.media.limits import DecoderName, Isolation

PLAIN = ["mp4", "mov", "mkv", "webm", "ts", "wmv", "flv", "closed.mp4", "closed.mkv"]


@pytest.fixture(scope="module")
def films(films: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Also films in which no frame refers across a keyframe."""
    folder = tmp_path_factory.mktemp("closed")
    for name in ("closed.mp4", "closed.mkv"):
        write_numbered(folder / name, 40, codec="libx264-closed")
        films = {**films, name: folder / name}
    return films


def usable(decoder: DecoderName) -> DecoderName:
    pytest.importorskip(decoder)
    if decoder == "torchcodec":
        import torchcodec

        if torchcodec.ffmpeg_major_version is None:
            pytest.skip("torchcodec finds no shared libraries of FFmpeg")
    return decoder


@pytest.mark.parametrize("decoder", ["decord", "torchcodec"])
@pytest.mark.parametrize("container", PLAIN)
def test_decoders_agree_on_frames_and_times(films: dict[str, Path], container: str, decoder: DecoderName) -> None:
    limits = Limits(decoder=usable(decoder))
    for clip in (Clip(films[container]), Clip(films[container], 1.25, 3.0), Clip(films[container], 3.9)):
        for fps in (10.0, 3.0):
            ours = sample_video(clip, fps, 100)
            theirs = sample_video(clip, fps, 100, limits)
            assert theirs.timestamps == ours.timestamps
            assert list(map(number_of, theirs.images)) == list(map(number_of, ours.images))
            for one, other in zip(ours.images, theirs.images, strict=True):
                assert np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).mean() < 3.0
            # A library that cannot read a container is replaced, and says so.
            assert all(f"instead of {decoder}" in warning for warning in theirs.warnings)


@pytest.mark.parametrize("decoder", ["decord", "torchcodec"])
def test_a_plain_mp4_needs_no_fallback(films: dict[str, Path], decoder: DecoderName) -> None:
    assert sample_video(films["closed.mp4"], 2.0, 8, Limits(decoder=usable(decoder))).warnings == ()


def test_what_a_decoder_shows_differently_falls_back_and_says_so(tmp_path: Path, films: dict[str, Path]) -> None:
    limits = Limits(decoder=usable("decord"))
    turned = tmp_path / "turned.mp4"
    media_makers.write_video(turned, [media_makers.numbered(k).rotate(-90, expand=True) for k in range(6)],
                             matrix=(90, False, False))  # fmt: skip
    for path, reason in ((turned, "turned"), (films["avi"], "no presentation times"), (films["gif"], "animated")):
        frames = sample_video(path, 10.0, 100, limits)
        assert list(map(number_of, frames.images)) == list(range(len(frames.images)))
        [warning] = frames.warnings
        assert "with PyAV instead of decord" in warning
        assert reason in warning


def test_workers_use_the_decoder_and_hand_warnings_on(films: dict[str, Path]) -> None:
    limits = Limits(decoder=usable("decord"), isolation=Isolation(workers=1, memory_bytes=8 * 1024**3))
    plain, fallen_back = (
        load(Item(videos=(films[name],)), VisualBudget(), limits).videos[0] for name in ("closed.mp4", "avi")
    )
    assert plain.warnings == ()
    assert "instead of decord" in fallen_back.warnings[0]


def test_an_unknown_or_missing_decoder_is_named(films: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="unknown decoder") as unknown:
        Limits(decoder="ffmpeg")  # type: ignore[arg-type]
    assert "torchcodec" in unknown.value.hint
    monkeypatch.setitem(__import__("sys").modules, "decord", None)
    with pytest.raises(MissingExtra, match="decord") as missing:
        sample_video(films["closed.mp4"], 2.0, 8, Limits(decoder="decord"))
    assert "ume-retrieval[decord]" in missing.value.hint


def test_an_open_reader_of_decord_is_a_video(films: dict[str, Path]) -> None:
    usable("decord")
    import decord

    reader = decord.VideoReader(str(films["closed.mp4"]), num_threads=1)
    budget = VisualBudget()
    first, again = load(Item(videos=(reader,)), budget), load(Item(videos=(reader,)), budget)
    of_file = load(Item(videos=(films["closed.mp4"],)), budget)
    assert first.content_id == again.content_id
    assert list(map(number_of, first.videos[0].images)) == list(map(number_of, of_file.videos[0].images))
    assert first.videos[0].timestamps == pytest.approx(of_file.videos[0].timestamps)


def test_damage_after_a_seek_goes_back_to_an_earlier_keyframe(tmp_path: Path) -> None:
    """A container that marks every packet as a keyframe makes a seek land where nothing decodes."""
    import av

    plain, path = tmp_path / "plain.webm", tmp_path / "marked.webm"
    write_numbered(plain, 40, gop=100)
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.is_keyframe = True
                packet.stream = stream
                target.mux(packet)
    for start in (1.0, 2.5, 3.9):
        frames = sample_video(Clip(path, start, start + 0.1), 10.0, 1)
        assert [number_of(image) for image in frames.images] == [round(start * 10)]
