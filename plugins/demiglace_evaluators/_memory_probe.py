"""What a process of its own does for `evaluate.memory`: open a model, answer once, say what that took.

Run as `python -c ... JOB`; the job is a JSON file that `memory` writes.
"""

from __future__ import annotations

import json
import resource
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # what proc(5) says sets the peak back to what is resident now


def main() -> None:
    """Print the bytes that were resident before, once the model was open, and at the peak."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    import torch
    from safetensors.torch import load_file

    for name in job["imports"]:
        import_module(name)
    torch.set_num_threads(job["threads"])
    inputs = load_file(job["inputs"])
    args = [inputs[name] for name in job["args"]]
    kwargs = {name: inputs[name] for name in job["kwargs"]}
    before = _forget_peak()
    module = _opened(job).eval()
    opened = _resident()
    with torch.inference_mode():
        module(*args, **kwargs)
    print(json.dumps({"before": before, "opened": opened, "peak": _peak()}))  # noqa: T201 - to the parent


def _opened(job: dict[str, Any]) -> nn.Module:
    from demiglace.api import load
    from demiglace.plugins import discover

    if job["runtime"] == "eager":
        return load(job["path"], allow_code=job["code"])
    settings = {"threads": job["threads"], "options": job["options"]}
    return discover().open_file(job["runtime"], job["path"], **settings)


def _forget_peak() -> int:
    """What is resident; where the system lets the peak be set back, it is that from now on."""
    try:
        _RESET.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return _peak()
    return _resident()


def _resident() -> int:
    return _from_status("VmRSS") or _largest()


def _peak() -> int:
    return _from_status("VmHWM") or _largest()


def _from_status(key: str) -> int | None:
    """Bytes of a line of /proc/self/status; `None` where there is no such file."""
    if not _STATUS.exists():
        return None
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    found = next((line.split()[1] for line in lines if line.startswith(f"{key}:")), None)
    return None if found is None else 1024 * int(found)


def _largest() -> int:
    """The largest resident size of the process so far; macOS says it in bytes, others in kilobytes."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest
