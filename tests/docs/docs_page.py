"""A page of the documentation at work: files are written, recipes checked, Python run, commands called.

A fence whose first line is a comment with a file's name (`# small.toml`, `# train.py: what it is for`) is
that file, in the page's own folder. A Python fence without a name runs in the page's namespace, which has
`model`, `train_loader` and `test_loader`. Before a fence, `<!-- wrong -->` says that its recipe is refused,
and `<!-- slow -->` anywhere in a page makes its test a slow one.
"""

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from docs_output import difference
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

import demiglace
from demiglace.cli import main

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SLOW = "<!-- slow -->"
WRONG = "<!-- wrong -->"

_NAMED = re.compile(r"# ([\w./-]+\.(?:py|toml))(?::.*)?\n")
_BY_HAND = {"make", "pip", "git", "cd", "python3"}
"""Commands that a page shows and that are not called."""
_PROGRESS = re.compile(r"(\[\d+/\d+\] .*|  [\w.-]+: (\d+\.\d s|.* \d+(/\d+)?))\n")


class Page:
    """The fences of one page, evaluated one after the other in a folder of their own."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.text = path.read_text(encoding="utf-8")
        self.folder = folder
        self.code = 0
        parsers = [CodeBlockParser(language, kind) for language, kind in self._kinds().items()]
        self.document: Document = Sybil(parsers, path=str(ROOT)).parse(path)

    def _kinds(self):
        return {"toml": self.toml, "python": self.python, "console": self.console}

    def toml(self, example: Example) -> None:
        name = self._written(example) or "fence.toml"
        if name == "pyproject.toml":
            self._install(tomllib.loads(example.parsed))
            return
        text = _completed(example.parsed)
        path = self.folder / name
        path.write_text(text)
        if self._marked(example, WRONG):
            with pytest.raises(demiglace.DemiglaceError):
                demiglace.check(path)
            return
        try:
            demiglace.check(path)
        except demiglace.DemiglaceError as error:
            # A single pass may need what the recipe around it gives.
            alone = "model" not in tomllib.loads(text) and len(tomllib.loads(text)["pass"]) == 1
            unmet = "which nothing before it gives"
            if not (alone and all(unmet in fault.message for fault in error.faults)):
                raise
        path.write_text(example.parsed)

    def python(self, example: Example) -> None:
        name = self._written(example)
        if name is None:
            # The lines of the page itself, so that a traceback points there.
            code = compile("\n" * example.line + example.parsed, example.path, "exec")
            exec(code, example.namespace)
        else:
            runpy.run_path(str(self.folder / name), run_name=name.removesuffix(".py"))

    def console(self, example: Example) -> None:
        for command, shown in _calls(example.parsed):
            printed = self._called(command)
            if printed is None:
                continue
            wrong = difference(shown, printed)
            assert wrong is None, f"$ {command}\n{wrong}"

    def _called(self, command: str) -> str | None:
        """What a command prints; `None` for one that is not called."""
        if command == "echo $?":
            return f"{self.code}\n"
        program, *arguments = shlex.split(command, comments=True)
        if program in _BY_HAND:
            return None
        if program == "pytest":
            return self._tested(arguments)
        assert program == "demiglace", f"a page calls {program}"
        out, err = _captured(lambda: setattr(self, "code", main(arguments)))
        return out + _PROGRESS.sub("", err)

    def _tested(self, arguments: list[str]) -> str:
        """What a pytest of its own prints, with the page's plugins installed."""
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments],
            env=os.environ | {"PYTHONPATH": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout

    def _written(self, example: Example) -> str | None:
        """The name of the file that a fence is; the file is there afterwards."""
        name = file_of(example)
        if name is not None:
            (self.folder / name).write_text(example.parsed)
        return name

    def _marked(self, example: Example, mark: str) -> bool:
        return self.text[: example.start].rstrip().endswith(mark)

    def _install(self, project: dict) -> None:
        """Write a distribution's metadata as an installer does."""
        about = {"name": "acme", "version": "1.0"} | project["project"]
        info = self.folder / f"{about['name'].replace('-', '_')}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
        (info / "METADATA").write_text(metadata)
        points = [f"{name} = {module}" for name, module in about["entry-points"]["demiglace"].items()]
        (info / "entry_points.txt").write_text("\n".join(["[demiglace]", *points, ""]))


def file_of(example: Example) -> str | None:
    """The name of the file that a fence is."""
    named = _NAMED.match(example.parsed)
    return None if named is None else named[1]


def _completed(text: str) -> str:
    """A recipe of which a page shows only some tables: the digits recipe has the rest."""
    tables = tomllib.loads(text)
    return text if "pass" in tables or "extends" in tables else f'extends = "recipe:digits"\n{text}'


def _calls(block: str) -> list[tuple[str, str]]:
    """Each command of a console block with its output."""
    parts = re.split(r"^\$ (.*)\n", f"{block}\n", flags=re.MULTILINE)
    assert not parts[0].strip(), "a console block begins with a command"
    return list(zip(parts[1::2], parts[2::2], strict=True))


def _captured(call) -> tuple[str, str]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        call()
    sys.stdout.flush()
    return out.getvalue(), err.getvalue()
