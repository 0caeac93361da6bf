from __future__ import annotations

from pathlib import Path

import media_makers
import pytest


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One film of 40 numbered frames, 10 a second, in every container; `h264.avi` has B-frames without timestamps."""
    folder = tmp_path_factory.mktemp("films")
    films = {suffix[1:]: folder / f"film{suffix}" for suffix in media_makers.CODECS}
    for path in films.values():
        media_makers.write_numbered(path)
    films["h264.avi"] = folder / "film.h264.avi"
    media_makers.write_numbered(films["h264.avi"], codec="libx264")
    films["gif"] = folder / "film.gif"
    media_makers.write_gif(films["gif"], 40)
    for suffix in ("webp", "png", "avif"):
        films[suffix] = folder / f"film.{suffix}"
        media_makers.write_animation(films[suffix], 40)
    return films
