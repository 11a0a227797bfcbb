"""English sentences that are on every machine: the first ones of the standard library's docstrings."""

import hashlib
import importlib
import inspect
import re
import sys


def sentences(count):
    """`count` different sentences, in the order of their hashes.

    Which sentences there are depends on the modules that can be imported: where a few more or fewer are
    found, all others keep their order.
    """
    found = set()
    for name in sorted(sys.stdlib_module_names):
        if name.startswith("_") or name in {"antigravity", "this", "idlelib"}:
            continue
        try:
            module = importlib.import_module(name)
        except Exception:
            continue
        for value in [module, *vars(module).values()]:
            if inspect.isroutine(value) or inspect.isclass(value) or inspect.ismodule(value):
                found |= set(_sentences(inspect.getdoc(value) or ""))
                if inspect.isclass(value):
                    for own in vars(value).values():
                        found |= set(_sentences(getattr(own, "__doc__", None) or ""))
    chosen = sorted(found, key=lambda text: hashlib.sha256(text.encode()).digest())
    if len(chosen) < count:
        raise ValueError(f"only {len(chosen)} sentences")
    return chosen[:count]


def _sentences(text):
    for part in re.split(r"(?<=[.!?])\s+", " ".join(str(text).split())):
        if 40 <= len(part) <= 160 and part[0].isupper() and part.endswith(".") and ">>>" not in part:
            yield part
