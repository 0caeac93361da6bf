"""The MCP server, asked by the mcp package's own client over HTTP and over standard input."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from pathlib import Path

import httpx
import PIL.Image
import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from serve_world import with_own_store

from ume_qdrant import open_store
from ume_serve import Settings


async def found_by(client: Client, **arguments: object) -> list[dict[str, object]]:
    answer = await client.call_tool("search", arguments)
    assert not answer.is_error, answer
    assert answer.structured_content is not None
    hits: list[dict[str, object]] = answer.structured_content["result"]
    return hits


async def test_tools_over_http(base: str, settings: Settings) -> None:
    async with Client(f"{base}/mcp") as client:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == {"search", "show_evidence", "index_status"}
        [hit] = await found_by(client, text="red", kinds=["image"], limit=1)
        assert hit["name"] == "media/red.png"
        shown = await client.call_tool("show_evidence", {"id": hit["id"]})
        words, picture = shown.content
        assert words.type == "text"
        assert json.loads(words.text)["boxes"]
        assert picture.type == "image"
        image = PIL.Image.open(io.BytesIO(base64.b64decode(picture.data)))
        assert (image.format, image.size) == ("PNG", (120, 90))
        status = (await client.call_tool("index_status", {})).structured_content
        assert status is not None
        assert (status["ready"], status["points"], status["indexing"]["state"]) == (True, 6, "idle")
        [resource] = (await client.read_resource(f"ume://points/{hit['id']}")).contents
        assert json.loads(resource.text)["thinking"].startswith("<thinking>")  # type: ignore[union-attr]
        [text, *_] = await found_by(client, text="the last train home", kinds=["text"])
        assert len((await client.call_tool("show_evidence", {"id": text["id"]})).content) == 1
        for wrong in ({"id": "../../etc/passwd"}, {"id": "00000000-0000-0000-0000-000000000000"}):
            assert (await client.call_tool("show_evidence", wrong)).is_error
        answer = await client.call_tool("search", {"text": "x" * 30_000})
        assert answer.is_error
        assert str(Path(settings.store).parent) not in str(answer)


def test_the_guard_protects_the_tools_too(base: str) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    headers = {"accept": "application/json, text/event-stream"}
    assert httpx.post(f"{base}/mcp", json=body, headers=headers | {"host": "attacker.example"}).status_code == 421
    assert (
        httpx.post(f"{base}/mcp", json=body, headers=headers | {"origin": "https://attacker.example"}).status_code
        == 403
    )


@pytest.mark.parametrize("model", ["ume-tiny"])
async def test_tools_over_standard_input(settings: Settings, tmp_path: Path, model: str) -> None:
    own = with_own_store(settings, tmp_path)
    with open_store(own.store, "default") as store:
        count = store.count()
    command = "import sys; from ume_cli import main; sys.argv[0] = 'ume'; main()"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "UME_CACHE_DIR": str(tmp_path)}
    server = StdioServerParameters(
        command=sys.executable, args=["-c", command, "mcp", "--store", own.store, "--model", model], env=environment
    )
    async with Client(server) as client:
        status = (await client.call_tool("index_status", {})).structured_content
    assert status is not None
    assert status["points"] == count
