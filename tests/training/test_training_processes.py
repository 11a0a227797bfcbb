"""The same recipe in two processes under torchrun: one model, one course, one writer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import demiglace
from demiglace.data import Batch
from demiglace.errors import UsageError
from demiglace.training.checkpoint import read_checkpoint
from demiglace.training.processes import Processes

PRUNE = {"use": "prune.magnitude", "amount": 0.8, "schedule": {"end": 0.5}}
TRAIN = {"use": "train.supervised", "epochs": 3, "optimizer": {"name": "Adam", "lr": 0.01}, "with": [PRUNE]}
TRAIN["checkpoint"] = True
RECIPE = {
    "name": "two",
    "model": {"use": "mlp", "widths": [12, 16, 4]},
    "data": {"use": "fake", "shape": [12], "classes": 4, "train": 330, "batch_size": 16},
    "evaluate": [{"use": "evaluate.classification"}],
    "pass": [TRAIN],
}
WORKER = """
import json, os, sys
import torch
import demiglace

recipe, folder = json.loads(sys.argv[1]), sys.argv[2]
result = demiglace.run(recipe, out=folder + "/run")
history = result.steps[0].figures["history"]
state = {name: value.tolist() for name, value in result.model.state_dict().items()}
with open(f"{folder}/rank{os.environ['RANK']}.json", "w") as file:
    json.dump({"history": history, "state": state, "path": str(result.path)}, file)
"""


def launch(recipe, folder: Path, processes: int = 2) -> subprocess.CompletedProcess[str]:
    (folder / "worker.py").write_text(WORKER)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
    ]
    command += [str(folder / "worker.py"), json.dumps(recipe), str(folder)]
    # Its folder of logs stays otherwise in the system's.
    own = {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | own, timeout=300, check=False
    )


@pytest.mark.slow
def test_two_processes_train_one_model_as_one_with_the_doubled_batch_does(tmp_path):
    ran = launch(RECIPE, tmp_path)
    assert ran.returncode == 0, ran.stderr
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["state"] == second["state"], "equal to the bit"
    assert first["history"] == second["history"]
    assert (first["path"], second["path"]) == (str(tmp_path / "run"), "None")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "done"
    [kept] = (tmp_path / "run").glob("steps/*/checkpoints/*")
    randomness = read_checkpoint(kept).state["parts"]["random"]["processes"]
    assert len(randomness) == 2, "each process has random numbers of its own"
    assert not torch.equal(randomness[0]["torch"], randomness[1]["torch"])
    alone = demiglace.run(RECIPE, overrides=["data.batch_size=32"])
    losses = [entry["loss"] for entry in alone.steps[0].figures["history"]]
    assert [entry["loss"] for entry in first["history"]] == pytest.approx(losses, abs=1e-5)
    zeros = sum(row.count(0.0) for name in ("fc1.weight", "fc2.weight") for row in first["state"][name])
    assert zeros == round(0.8 * (12 * 16 + 16 * 4))


def test_another_number_of_processes_than_asked_is_refused():
    with pytest.raises(UsageError, match="asks for 2 processes, and 1 run") as caught:
        demiglace.run(RECIPE | {"run": {"processes": 2}})
    assert "torchrun --nproc-per-node 2" in caught.value.faults[0].hint


def test_the_parts_of_a_batch_make_the_whole():
    batch = Batch((torch.arange(7), "flag"), {"mask": torch.arange(7)}, torch.arange(7))
    together = Processes()
    together.size = 3
    parts = []
    for together.rank in range(3):
        parts.append(together.part(batch))
    assert torch.equal(torch.cat([part.args[0] for part, _ in parts]), torch.arange(7))
    assert torch.equal(torch.cat([part.labels for part, _ in parts]), torch.arange(7))
    assert sum(share for _, share in parts) == pytest.approx(1.0)
    assert all(len(part) == round(7 * share) and part.args[1] == "flag" for part, share in parts)


def test_a_batch_of_fewer_examples_than_processes_goes_to_all():
    together = Processes()
    together.size, together.rank = 3, 2
    batch, share = together.part(Batch((torch.arange(2),)))
    assert (len(batch), share) == (2, pytest.approx(1 / 3))
