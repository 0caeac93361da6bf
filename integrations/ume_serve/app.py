"""The ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request

from ume_retrieval.errors import UmeError
from ume_serve import openai_api, routes
from ume_serve.guard import Guard
from ume_serve.indexing import IndexJob, running_service
from ume_serve.mcp_server import create_mcp
from ume_serve.replies import answer_error
from ume_serve.service import Service, load_models
from ume_serve.settings import Settings

if TYPE_CHECKING:
    from ume_retrieval.pipeline.embedder import ReasoningEmbedder


def create_app(settings: Settings, load: Callable[[], ReasoningEmbedder] | None = None) -> FastAPI:
    """Build the server's application, for any ASGI server; it answers while the models are being loaded.

    Args:
        settings: What is served.
        load: Loads the models; by default those that the settings name.

    Example:
        >>> from ume_retrieval.testing import fake_embedder
        >>> create_app(Settings(), load=fake_embedder).title
        'ume serve'
    """
    service = Service(settings, load or partial(load_models, settings))
    job = IndexJob(service)
    # The guard has checked host and origin already.
    trusted = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    agents = create_mcp(service, job)
    agent_routes = agents.streamable_http_app(stateless_http=True, transport_security=trusted).routes

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        app.state.service, app.state.index_job = service, job
        async with running_service(service, job), agents.session_manager.run():
            yield

    app = FastAPI(title="ume serve", lifespan=running, docs_url=None, redoc_url=None)
    app.add_exception_handler(UmeError, answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.include_router(routes.router)
    app.include_router(openai_api.router)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> Response:
        """Say whether the models are loaded: status 200, or 503 with the reason."""
        models = service.models
        if models.embedder is not None:
            return JSONResponse({"status": "ready"})
        state = "loading" if models.failure is None else "failed"
        return JSONResponse({"status": state, "error": models.failure}, 503, {"Retry-After": "1"})

    app.router.routes.extend(agent_routes)
    app.add_middleware(Guard, settings=settings)
    return app


async def serve_stdio(settings: Settings, load: Callable[[], ReasoningEmbedder] | None = None) -> None:
    """Serve the MCP tools on standard input and output until the input ends."""
    service = Service(settings, load or partial(load_models, settings))
    job = IndexJob(service)
    async with running_service(service, job):
        await create_mcp(service, job).run_stdio_async()


async def _answer_invalid(_: Request, error: Exception) -> JSONResponse:
    """Name the first wrong field without repeating what was sent."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  # it is registered for these only
    first: dict[str, Any] = dict(error.errors()[0])
    place = ".".join(str(part) for part in first["loc"][1:])
    body = {"code": "invalid_input", "message": f"{place}: {first['msg']}", "type": "invalid_request_error"}
    return JSONResponse({"error": body}, 422)
