"""Indexing as a job of the server, with its progress as states."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from pydantic import BaseModel

from ume_qdrant import Progress, index
from ume_retrieval.errors import InputError, Stopped, UmeError
from ume_serve.replies import error_body
from ume_serve.service import Service

CHANGES_S = 0.2
"""Seconds between two states of a running job."""


class IndexState(BaseModel):
    """How far indexing has got."""

    state: Literal["idle", "running", "done", "failed", "stopped"] = "idle"
    stage: str = ""
    done: int = 0
    total: int | None = None
    indexed: int = 0
    unchanged: int = 0
    failed: int = 0
    error: str = ""


class IndexJob:
    """Indexes the server's media in a thread, one run at a time.

    Args:
        service: Models and store; `settings.media` says what is indexed.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stop = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self.state = IndexState()

    def start(self) -> IndexState:
        """Start a run unless one is going on.

        Raises:
            InputError: When the server was started without media.
            NotReady: Until the models are loaded.
        """
        if not self._service.settings.media:
            raise InputError("this server indexes nothing", hint="start it with --media FOLDER")
        self._service.embedder  # noqa: B018  # raises until the models are loaded
        if self._task is None or self._task.done():
            self._stop.clear()
            self.state = IndexState(state="running")
            self._task = asyncio.create_task(self._run())
        return self.state

    async def states(self) -> AsyncIterator[IndexState]:
        """Yield states as they change, until no run is going on."""
        last: IndexState | None = None
        while True:
            if self.state != last:
                last = self.state
                yield last
            if last.state != "running":
                return
            await asyncio.sleep(CHANGES_S)

    async def close(self) -> None:
        """Stop a run at its next step; what it has written stays, and the next run goes on from there."""
        self._stop.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        service = self._service

        def progress(step: Progress) -> None:
            if self._stop.is_set():
                raise Stopped
            changes = {"stage": str(step.stage), "done": step.done, "total": step.total}
            self.state = self.state.model_copy(update=changes)

        def run() -> IndexState:
            reasoning: Literal["always", "later"] = "always" if service.embedder.reasoner is not None else "later"
            report = index(
                service.embedder,
                service.blocking_store,
                list(service.settings.media),
                reasoning=reasoning,
                on_progress=progress,
            )
            return IndexState(
                state="done", indexed=report.indexed, unchanged=report.unchanged, failed=len(report.failed)
            )

        try:
            self.state = await asyncio.to_thread(run)
        except Stopped:
            self.state = IndexState(state="stopped")
        except UmeError as error:
            self.state = IndexState(state="failed", error=error_body(error)["error"]["message"])
        except Exception as error:  # noqa: BLE001  # a job without a reader of its errors says so in its state
            self.state = IndexState(state="failed", error=type(error).__name__)


@asynccontextmanager
async def running_service(service: Service, job: IndexJob) -> AsyncIterator[None]:
    """Load the models meanwhile; at the end stop indexing and close the store."""
    loading = asyncio.create_task(service.start())
    try:
        yield
    finally:
        await job.close()
        await loading
        await service.close()
