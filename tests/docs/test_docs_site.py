"""The site: it builds, its links and anchors resolve, its reference is complete and true."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from docs_pages import DOCS, PAGES, ROOT, anchors, links, markdown

REFERENCE = {page: PAGES[page] for page in PAGES if page.startswith("reference/")}


class _Config(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name Python objects."""


_Config.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=_Config)  # noqa: S506  # a SafeLoader
    return loaded


def _pages_of(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _pages_of(part)


def test_the_navigation_has_every_page_once(config: dict[str, Any]) -> None:
    listed = list(_pages_of(config["nav"]))
    assert sorted(listed) == sorted(PAGES)
    assert [next(iter(part)) for part in config["nav"]] == ["Home", "Tutorial", "How to", "Reference", "Explanation"]


def test_the_site_asks_nobody_else(config: dict[str, Any]) -> None:
    assert config["theme"]["font"] is False
    assert not any("://" in str(path) for path in (*config["extra_css"], *config.get("extra_javascript", ())))


@pytest.mark.parametrize("page", PAGES)
def test_links_and_anchors_of_a_page_resolve(page: str) -> None:
    for link in links(page):
        if "://" in link or link.startswith("mailto:"):
            continue
        target, _, anchor = link.partition("#")
        path = (PAGES[page].parent / target).resolve() if target else PAGES[page]
        assert path.exists(), f"{page}: {link}"
        name = path.relative_to(DOCS).as_posix() if path.is_relative_to(DOCS) else ""
        if anchor and name in REFERENCE:
            assert re.search(rf"^::: {re.escape(anchor)}$", markdown(name), re.MULTILINE), f"{page}: {link}"
        elif anchor:
            assert anchor in anchors(name), f"{page}: {link}"


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_a_machine(page: str) -> None:
    text = markdown(page)
    assert not re.search(r"(?<![\w.])/(home|root|work|tmp|Users|mnt)/", text)
    assert not re.search(r"\b(localhost|pypi|huggingface\.co|\w+\.internal)\b", text, flags=re.IGNORECASE)


def test_the_reference_of_the_command_line_is_what_the_app_says() -> None:
    """`make docs` writes it anew."""
    spec = importlib.util.spec_from_file_location("cli_reference", DOCS / "tools" / "cli_reference.py")
    assert spec
    assert spec.loader
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.cli_page()
    assert "## `ume search`" in page
    assert markdown("reference/cli.md") == page


def test_the_reference_has_everything_that_is_public() -> None:
    documented = set(re.findall(r"^::: ([\w.]+)$", "\n".join(map(markdown, REFERENCE)), flags=re.MULTILINE))
    shown = {name.rsplit(".", 1)[-1] for name in documented}
    modules = {name for name in documented if importlib.util.find_spec(name.rsplit(".", 1)[0]) and _is_module(name)}
    for package in ("ume_retrieval", "ume_qdrant", "ume_llama_index"):
        for name in importlib.import_module(package).__all__:
            if name != "__version__":
                home = getattr(getattr(importlib.import_module(package), name), "__module__", "")
                assert name in shown or home in modules, f"{package}.{name}"


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(  # noqa: S603  # a fixed command
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"NO_MKDOCS_2_WARNING": "1", "PATH": str(Path(sys.executable).parent)},
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_the_site_builds_without_a_warning(site: Path) -> None:
    assert {page.with_suffix(".html").as_posix() for page in map(Path, PAGES)} <= {
        path.relative_to(site).as_posix() for path in site.rglob("*.html")
    }
    assert not list(site.rglob("*.py"))


def test_the_built_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//[^"]*"', html), page.name


def test_the_built_site_says_what_is_not_run(site: Path) -> None:
    html = (site / "how-to" / "engines.html").read_text(encoding="utf-8")
    assert html.count("The tests do not run this: needs vLLM and a GPU.") == 2
    assert "<!-- not executed" not in html


def test_the_built_reference_shows_signatures_and_examples(site: Path) -> None:
    html = (site / "reference" / "pipeline.html").read_text(encoding="utf-8")
    assert 'id="ume_retrieval.pipeline.embedder.ReasoningEmbedder.encode_query"' in html
    assert "Examples:" in html
    assert "&gt;&gt;&gt;" in html
