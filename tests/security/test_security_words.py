"""What is shown: no keys, no absolute paths on report pages, names that cannot steer a terminal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_media import RED, picture

from ume_cli.options import load_embedder
from ume_qdrant import Hit, report_query
from ume_retrieval import Item
from ume_retrieval.media import Isolation, display_name
from ume_retrieval.report import ReportPage, render_html

ROOT = Path(__file__).parents[2]


def test_report_pages_show_no_absolute_paths(tmp_path: Path) -> None:
    private = tmp_path / "home" / "alice" / "secret-project"
    private.mkdir(parents=True)
    path = picture(private / "plan.png", RED)
    hit = Hit.of("00000000-0000-0000-0000-000000000001", 0.5, {"source": display_name(path), "kind": "image"})
    page = render_html(ReportPage(title="Plans", queries=(report_query(Item(text="plan"), [hit], None),)))
    assert "alice/secret-project/plan.png" in page
    assert str(private) not in page
    assert "home/alice" not in page


@pytest.mark.parametrize("isolate", [False, True])
def test_the_command_line_isolates_when_asked(isolate: bool, tmp_path: Path) -> None:
    embedder = load_embedder("ume-tiny", "none", "cpu", cache=tmp_path / "traces.sqlite3", isolate=isolate)
    assert embedder.limits.isolation == (Isolation() if isolate else None)
    assert np.isfinite(embedder.encode_corpus(["a"], reasoning="never")).all()


def test_the_threat_model_names_what_there_is() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for name in ("allow_remote", "follow_symlinks", "trust_remote_code", "UME_ISOLATE", "media_crashed", "known_bad"):
        assert name in text
