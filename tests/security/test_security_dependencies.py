"""The dependency audit that needs no network: bounds, licences, and releases that are known to be bad.

`known_bad.toml` is a list kept by hand of advisories that touch what this project does with a package; it is no
replacement for an audit against a live database, which `SECURITY.md` says how to run.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
KNOWN_BAD = tomllib.loads((Path(__file__).with_name("known_bad.toml")).read_text(encoding="utf-8"))["release"]

PERMISSIVE = re.compile(
    r"apache|\bmit\b|\bbsd\b|\bpsf\b|python software foundation|\bisc\b|mozilla|mpl|unlicense|zlib|hpnd|cmu|0bsd|cnri",
    re.IGNORECASE,
)
COPYLEFT = re.compile(r"\b(a|l)?gpl|general public license", re.IGNORECASE)


def declared() -> list[Requirement]:
    """Everything that pyproject.toml names, extras included."""
    extras = PROJECT["optional-dependencies"].values()
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]
    return [one for one in map(Requirement, texts) if one.name != PROJECT["name"]]


def core() -> list[str]:
    """What `pip install` of the library alone brings, as far as it is installed here."""
    found: dict[str, None] = {}
    ahead = [Requirement(text) for text in PROJECT["dependencies"]]
    while ahead:
        one = ahead.pop()
        if one.name.lower() in found or (one.marker is not None and not one.marker.evaluate({"extra": ""})):
            continue
        try:
            requires = distribution(one.name).requires or []
        except PackageNotFoundError:
            continue
        found[one.name.lower()] = None
        ahead += map(Requirement, requires)
    return list(found)


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_every_dependency_has_a_lower_bound_and_no_address(requirement: Requirement) -> None:
    assert requirement.url is None
    assert any(one.operator in {">=", "==", "~="} for one in requirement.specifier)


@pytest.mark.parametrize("bad", KNOWN_BAD, ids=lambda bad: f"{bad['package']} {bad['advisory']}")
def test_no_bad_release_is_installed_or_allowed(bad: dict[str, str]) -> None:
    affected = SpecifierSet(bad["affected"])
    try:
        version = distribution(bad["package"]).version
    except PackageNotFoundError:
        version = None
    assert version is None or not affected.contains(Version(version), prereleases=True), bad["what"]
    for requirement in declared():
        if requirement.name.lower() == bad["package"]:
            lowest = [Version(one.version) for one in requirement.specifier if one.operator in {">=", "==", "~="}]
            assert not affected.contains(max(lowest)), f"{requirement} allows what {bad['advisory']} is about"


def test_the_list_of_bad_releases_is_one() -> None:
    assert len(KNOWN_BAD) >= 15
    for bad in KNOWN_BAD:
        assert bad.keys() == {"package", "affected", "advisory", "what"}
        assert re.fullmatch(r"CVE-\d{4}-\d{4,}", bad["advisory"])
        SpecifierSet(bad["affected"])


@pytest.mark.parametrize("name", core())
def test_licences_let_the_library_be_used(name: str) -> None:
    meta = distribution(name).metadata
    said = [meta.get("License-Expression") or "", *(meta.get_all("Classifier") or [])]
    licences = [text for text in said if text and (text == said[0] or text.startswith("License ::"))]
    text = " ".join(licences) or (meta.get("License") or "")[:200]
    if name.startswith(("nvidia-", "cuda-", "triton")):  # come with PyTorch for CUDA under NVIDIA's own terms
        return
    assert PERMISSIVE.search(text), f"{name}: {text!r}"
    assert not COPYLEFT.search(text) or " OR " in text, f"{name}: {text!r}"
