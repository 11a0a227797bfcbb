"""How much of the model zoo structural pruning reaches: `prune.channels` with `amount = 0.5`, nothing else.

    python benchmarks/coverage.py                       # torchvision's classifiers and segmentation models
    python benchmarks/coverage.py --timm                # thirty families of timm, where it is installed
    python benchmarks/coverage.py resnet18 swin_t       # some

Every model runs in a process of its own, with random weights, on as many threads as cores are left by --jobs.
It counts when it is verified, gives outputs of the right shape, and takes one optimizer step. Prints each
model as it is done and writes a page to --out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

TIMEOUT = 600
NOTE = 160
"""Characters of a note that the page shows."""
SEGMENTATION = (
    "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "deeplabv3_resnet101", "fcn_resnet50",
    "fcn_resnet101", "lraspp_mobilenet_v3_large",
)  # fmt: skip
TIMM = (
    "convnext_atto", "levit_128s", "deit_tiny_patch16_224", "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mixer_s32_224", "pvt_v2_b0", "ghostnet_050", "repvgg_a0", "beit_base_patch16_224", "mobilevit_xxs",
    "xcit_nano_12_p16_224", "coat_tiny", "poolformer_s12", "nfnet_f0", "hrnet_w18_small", "fastvit_t8",
    "efficientformer_l1", "resnest14d", "regnety_002", "mobilenetv3_small_050", "efficientnet_b0", "dpn48b",
    "dla34", "cspresnet50", "resmlp_12_224", "gmlp_ti16_224", "convmixer_768_32", "edgenext_xx_small",
    "inception_next_tiny",
)  # fmt: skip


@dataclass
class Row:
    """One model's result."""

    name: str
    seconds: float
    cpu_seconds: float
    ok: bool = False
    form: str = ""
    equality: str = ""
    dtype: str = ""
    error: float = 0.0
    macs: float = 0.0
    parameters: float = 0.0
    left_alone: str = ""
    failure: str = ""


def build(name: str):
    """A model with random weights, and the side of its input."""
    if name.startswith("timm:"):
        import timm

        model = timm.create_model(name.removeprefix("timm:"), pretrained=False)
        return model, model.default_cfg["input_size"][-1]
    import torchvision

    more = {"weights_backbone": None} if name in SEGMENTATION else {}
    if name in {"googlenet", "inception_v3"}:
        more["init_weights"] = False
    model = torchvision.models.get_model(name, weights=None, **more)
    return model, 299 if name == "inception_v3" else 224


def measure(name: str) -> Row:
    """Prune one model and check what comes out."""
    import torch

    import demiglace

    torch.manual_seed(0)
    model, side = build(name)
    example = torch.randn(1, 3, side, side)
    shapes = [one.shape for one in leaves(model.eval()(example))]
    recipe = {"name": "coverage", "pass": [{"use": "prune.channels", "amount": 0.5}]}
    started, cpu = time.perf_counter(), time.process_time()
    result = demiglace.run(recipe, model=model, example_inputs=(example,))
    row = Row(name, time.perf_counter() - started, time.process_time() - cpu)
    step = result.steps[-1]
    verified = step.verified
    row.form, row.equality = verified["form"], verified["equality"]
    row.dtype, row.error = verified["dtype"], verified["error"]
    row.macs = step.after.macs / step.before.macs
    row.parameters = step.after.parameters / step.before.parameters
    outputs = {alone for alone, why in step.left_alone.items() if "output of the model" in why}
    row.left_alone = "; ".join(f"{key}: {why}" for key, why in step.left_alone.items() if key not in outputs)
    found = leaves(result.model.eval()(example))
    if [one.shape for one in found] != shapes:
        raise AssertionError(f"outputs of shapes {found}, not {shapes}")
    train(result.model, side)
    row.ok = True
    return row


def train(model, side: int) -> None:
    """One optimizer step."""
    import torch

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    sum(one.float().mean() for one in leaves(model.train()(torch.randn(2, 3, side, side)))).backward()
    optimizer.step()


def leaves(value) -> list:
    from torch.utils._pytree import tree_leaves

    # Named tuples and dicts of outputs; an auxiliary head that eval leaves out is None.
    return [leaf for leaf in tree_leaves(value) if hasattr(leaf, "shape")]


def in_process(name: str, threads: int) -> Row:
    """Measure in a process of its own, so that a crash or a timeout is one model's."""
    started = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--one", name],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Row(name, TIMEOUT, 0.0, failure="timeout")
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return Row(**json.loads(lines[-1]))
    errors = done.stderr.strip().splitlines() or ["no message"]
    told = next((line for line in errors if "Error" in line or "Failed" in line), errors[-1])
    return Row(name, time.perf_counter() - started, 0.0, failure=told)


PAGE = """# Model coverage

Written by `make coverage`. Each network has random weights and is cut by

```toml
[[pass]]
use = "prune.channels"
amount = 0.5
```

and nothing else. A row counts when the cut is [verified](../explanation/verification.md), the outputs have
their shapes, and the result takes an optimizer step. MACs and parameters are the shares that are left; the
error is the largest difference in the proof, as a share of the largest output; seconds are wall time on
{threads} for the whole run. `left alone` names what kept its width, outputs of the model aside, with the
operator that held it.

"""


def page(rows: list[Row], threads: int) -> str:
    """The rows as a page of the documentation."""
    lines = [
        "| model | MACs | parameters | form | equality | dtype | error | seconds | left alone |",
        "|" + "---|" * 9,
    ]
    for row in rows:
        note = (row.failure or row.left_alone).replace("|", "\\|")
        note = note if len(note) <= NOTE else note[:NOTE].rpartition(" ")[0] + " ..."
        lines.append(
            f"| {row.name} | {row.macs:.2f} | {row.parameters:.2f} | {row.form or 'failed'} | {row.equality} "
            f"| {row.dtype} | {row.error:.0e} | {row.seconds:.1f} | {note} |"
        )
    good = sum(row.ok for row in rows)
    lines.append(f"\n{good} of {len(rows)}; {sum(row.seconds for row in rows):.0f} s in all.")
    words = "one thread" if threads == 1 else f"{threads} threads"
    return PAGE.format(threads=words) + "\n".join(lines) + "\n"


def told(row: Row) -> str:
    """One line for who watches."""
    return (
        f"{row.name:36s} {'ok ' if row.ok else 'BAD'} macs {row.macs:.2f} {row.form:6s} {row.equality:6s} "
        f"{row.dtype:7s} {row.error:.0e} {row.seconds:5.1f} s (cpu {row.cpu_seconds:.1f}) "
        f"{(row.failure or row.left_alone)[:160]}"
    )


def names(arguments: argparse.Namespace) -> list[str]:
    if arguments.models:
        return arguments.models
    if arguments.timm:
        return [f"timm:{name}" for name in TIMM]
    import torchvision

    return [*torchvision.models.list_models(module=torchvision.models), *SEGMENTATION]


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*")
    parser.add_argument("--timm", action="store_true")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time, which share the cores")
    parser.add_argument("--one", help="measure one model here and print it as JSON")
    parser.add_argument("--out", type=Path, default=Path("docs/reference/coverage.md"))
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(asdict(measure(arguments.one))))
        return
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    rows = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for row in pool.map(lambda name: in_process(name, threads), names(arguments)):
            rows.append(row)
            print(told(row), flush=True)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(page(rows, threads))


if __name__ == "__main__":
    main()
