"""Runs what pages show, or checks it as far as it can be checked where it cannot run."""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib.util
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from docs_pages import ROOT, Snippet, snippets
from typer.testing import CliRunner

from ume_cli.app import app
from ume_retrieval.engines.registry import resolve_embedder, resolve_reasoner, resolve_reranker

LOOSELY = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run_page(name: str) -> list[Snippet]:
    """Run a page from top to bottom in the working folder; its Python shares one set of names.

    Returns:
        The snippets that ran.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    ran = []
    for snippet in snippets(name):
        if snippet.reason or (snippet.needs and importlib.util.find_spec(snippet.needs) is None):
            continue
        printed = _python(snippet, names) if snippet.language == "python" else _shell(snippet)
        if snippet.output is not None and not doctest.OutputChecker().check_output(snippet.output, printed, LOOSELY):
            raise AssertionError(f"{snippet} shows\n{snippet.output}\nand prints\n{printed}")
        ran.append(snippet)
    return ran


def _python(snippet: Snippet, names: dict[str, Any]) -> str:
    code = compile("\n" * (snippet.line - 1) + snippet.code, f"docs/{snippet.page}", "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, names)  # noqa: S102  # the project's own words
    return printed.getvalue()


def _shell(snippet: Snippet) -> str:
    """Lines of `ume` run in this process, where its models are imported already; others in a shell."""
    printed = []
    for line in command_lines(snippet.code):
        if (words := plain_words(line)) and words[0] == "ume":
            result = CliRunner().invoke(app, words[1:])
            assert result.exit_code == 0, f"{snippet}: {line}\n{result.output}\n{result.exception!r}"
            printed.append(result.stdout)
        else:
            path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
            done = subprocess.run(  # noqa: S603  # the project's own words
                ["/bin/sh", "-euc", line], capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
            )
            assert done.returncode == 0, f"{snippet}: {line}\n{done.stdout}{done.stderr}"
            printed.append(done.stdout)
    return "".join(printed)


def command_lines(code: str) -> list[str]:
    """Lines of a shell snippet, continued ones joined, without comments and empty ones."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def plain_words(line: str) -> list[str]:
    """Words of a line without pipes, redirections and variables; empty when it has any."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words = list(lexer)
    return [] if any(re.fullmatch(r"[|&;<>]+", word) or word.startswith("$") for word in words) else words


def check_unrun(snippet: Snippet) -> None:
    """What a snippet that does not run names must exist: modules, names, arguments, models, commands, options."""
    if snippet.language == "sh":
        for line in command_lines(snippet.code):
            check_command(line)
    else:
        _check_python(ast.parse(snippet.code))


def _check_python(tree: ast.Module) -> None:
    names: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            assert module
            if module.startswith("ume_") or importlib.util.find_spec(module.split(".")[0]):
                exec(ast.unparse(node), names)  # noqa: S102  # an import
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            _check_call(node, names)


def _check_call(call: ast.Call, names: dict[str, Any]) -> None:
    *parents, last = ast.unparse(call.func).split(".")
    root = parents[0] if parents else last
    if root not in names:
        return
    called = names[root]
    for part in [*parents[1:], last] if parents else []:
        called = getattr(called, part)
    accepted = _keywords_of(called)
    for keyword in call.keywords:
        assert accepted is None or keyword.arg in accepted, f"{ast.unparse(call.func)} takes no {keyword.arg}"
    if last == "from_pretrained":
        for model in _texts(call.args):
            resolve = resolve_reranker if root == "Reranker" else resolve_embedder
            resolve(model)
        for model in _texts([one.value for one in call.keywords if one.arg == "reasoner"]):
            assert model == "auto" or resolve_reasoner(model)


def _keywords_of(called: Any) -> set[str] | None:
    """Return the keywords that a call accepts, those of `**options: Unpack[...]` included; None if it accepts all."""
    parameters = inspect.signature(called).parameters
    accepted = set(parameters)
    for one in parameters.values():
        if one.kind is inspect.Parameter.VAR_KEYWORD:
            options = re.fullmatch(r"Unpack\[(\w+)\]", str(one.annotation))
            if options is None:
                return None
            accepted |= set(called.__globals__[options[1]].__annotations__)
    return accepted


def _texts(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "path" not in node.value:
            yield node.value


def check_command(line: str) -> None:
    """A command that is not run: `ume` must understand it, make must have it, pip must know the extra."""
    words = shlex.split(re.split(r"[|>&]", line)[0], comments=True)
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    if not words or words[0] == "export":
        return
    if words[0] == "ume":
        understand(words[1:])
    elif words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert set(words[1:2]) <= set(targets), line
    elif words[:2] == ["pip", "install"]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        known = project["optional-dependencies"]
        assert set(re.findall(r"[\w-]+", "".join(re.findall(r"\[(.+?)\]", line)))) <= set(known), line
    else:
        assert words[0] in {"python", "accelerate", "docker", "git", "cd"}, f"{line}: what is {words[0]}?"


def understand(arguments: list[str]) -> None:
    """Parse the arguments of `ume` as it would, without doing anything."""
    command, rest = _command(arguments)
    command.make_context("ume", rest)


def command_of(arguments: list[str]) -> tuple[set[str], list[str]]:
    """Options that a command has, and those that a sentence names."""
    command, rest = _command(arguments)
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    return known, [word.split("=")[0] for word in rest if word.startswith("--")]


def _command(arguments: list[str]) -> tuple[Any, list[str]]:
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and arguments:
        name, *arguments = arguments
        if name.startswith("-"):
            break
        assert name in command.commands, f"there is no command {name!r}"
        command = command.commands[name]
    return command, arguments
