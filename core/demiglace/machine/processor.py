"""Which instructions for neural networks the processor has."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")

_X86 = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "int8 dot products",
    "avx512vbmi": "byte permutation",
    "avx_vnni": "int8 dot products",
    "amx_int8": "int8 matrices",
    "avx512_bf16": "bfloat16",
    "amx_bf16": "bfloat16",
}
_ARM = {
    "asimd": "neon",
    "asimddp": "int8 dot products",
    "i8mm": "int8 matrices",
    "bf16": "bfloat16",
    "sve": "sve",
}
_MACOS = {
    "hw.optional.neon": "neon",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512",
    "hw.optional.avx512vnni": "int8 dot products",
    "hw.optional.arm.FEAT_DotProd": "int8 dot products",
    "hw.optional.arm.FEAT_I8MM": "int8 matrices",
    "hw.optional.arm.FEAT_BF16": "bfloat16",
}
"""What systems call an instruction set, and what it is for."""

PERMUTATION = ("int8 dot products", "byte permutation")
"""What integer layers leave out their zeros with."""


@dataclass(frozen=True)
class Processor:
    """A processor, as far as compressed networks care."""

    name: str
    #: Such as `x86_64` or `arm64`.
    architecture: str
    #: That this process may use.
    cores: int
    #: Among `avx2`, `avx512`, `neon`, `sve`, `int8 dot products`, `int8 matrices`, `bfloat16`,
    #: `byte permutation`.
    features: frozenset[str]

    def has(self, *features: str) -> bool:
        """Whether it has one of them."""
        return not self.features.isdisjoint(features)


def processor() -> Processor:
    """The one at work here; without features where the system does not tell them."""
    name, features = _macos() if sys.platform == "darwin" else _linux()
    return Processor(name or platform.processor() or "unknown", platform.machine(), _cores(), features)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _linux() -> tuple[str, frozenset[str]]:
    text = _CPUINFO.read_text(encoding="utf-8", errors="replace") if _CPUINFO.exists() else ""
    return told_by_cpuinfo(text)


def told_by_cpuinfo(text: str) -> tuple[str, frozenset[str]]:
    """Name and features in the text of Linux's /proc/cpuinfo, of its first processor."""
    lines = [line.partition(":") for line in text.split("\n\n", maxsplit=1)[0].splitlines()]
    told = {key.strip().lower(): value.strip() for key, _, value in lines}
    return told.get("model name", ""), _named(
        [*told.get("flags", "").split(), *told.get("features", "").split()]
    )


def _named(flags: Iterable[str]) -> frozenset[str]:
    known = _X86 | _ARM | _MACOS
    return frozenset(known[flag] for flag in flags if flag in known)


def _macos() -> tuple[str, frozenset[str]]:
    try:
        text = subprocess.run(  # noqa: S603 - a fixed program with fixed arguments
            ["/usr/sbin/sysctl", "machdep.cpu.brand_string", *_MACOS],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    except OSError:
        return "", frozenset()
    lines = [line.partition(": ") for line in text.splitlines()]
    told = {key: value for key, _, value in lines}
    return told.get("machdep.cpu.brand_string", ""), _named(key for key in _MACOS if told.get(key) == "1")
