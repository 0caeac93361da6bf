"""One process that loads the models once and serves search, evidence and embeddings over HTTP (`ume serve`)."""

from __future__ import annotations

from ume_serve.app import create_app, serve_stdio
from ume_serve.settings import Settings

__all__ = ["Settings", "create_app", "serve_stdio"]
