"""The C++ compiler that torch.compile calls."""

from __future__ import annotations

import os
import shutil
import sys


def compiler() -> str | None:
    """The path of the C++ compiler that torch would call, if it is there."""
    return shutil.which(compiler_wanted())


def compiler_wanted() -> str:
    """What torch calls: what CXX names, else the system's own."""
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


def compiler_hint() -> str:
    """How to have one."""
    return (
        "install one (Debian, Ubuntu: apt-get install g++; macOS: xcode-select --install), or name it in CXX"
    )
