"""How much of the model zoo structural pruning reaches: `prune.channels` with `amount = 0.5`, nothing else.

    python benchmarks/coverage.py                       # torchvision's classifiers and segmentation models
    python benchmarks/coverage.py --timm                # thirty families of timm, where it is installed
    python benchmarks/coverage.py resnet18 swin_t       # some

Every model runs in a process of its own, with random weights. It counts when it is verified, gives outputs of
the right shape, and takes one optimizer step. Writes a Markdown table to --out and prints it as it grows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

TIMEOUT = 600
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
    row.form, row.equality, row.error = verified["form"], verified["equality"], verified["error"]
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


def in_process(name: str) -> Row:
    """Measure in a process of its own, so that a crash or a timeout is one model's."""
    started = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--one", name],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
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


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| model | MACs | parameters | form | equality | error | seconds | left alone |",
        "|" + "---|" * 8,
    ]
    for row in rows:
        note = row.failure or row.left_alone
        lines.append(
            f"| {row.name} | {row.macs:.2f} | {row.parameters:.2f} | {row.form or 'failed'} | {row.equality} "
            f"| {row.error:.0e} | {row.seconds:.1f} | {note[:200]} |"
        )
    good = sum(row.ok for row in rows)
    lines.append(f"\n{good} of {len(rows)}; {sum(row.seconds for row in rows):.0f} s in all.")
    return "\n".join(lines) + "\n"


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
    parser.add_argument("--one", help="measure one model here and print it as JSON")
    parser.add_argument("--out", type=Path, default=Path("docs/reference/coverage.md"))
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(asdict(measure(arguments.one))))
        return
    rows = []
    for name in names(arguments):
        rows.append(in_process(name))
        row = rows[-1]
        print(
            f"{row.name:32s} {'ok ' if row.ok else 'BAD'} macs {row.macs:.2f} {row.form:6s} "
            f"{row.equality:6s} {row.seconds:5.1f} s (cpu {row.cpu_seconds:.1f}) "
            f"{(row.failure or row.left_alone)[:160]}",
            flush=True,
        )
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(table(rows))


if __name__ == "__main__":
    main()
