"""Built-in sources of models and data, one file each; importable without torch."""

from __future__ import annotations

from collections.abc import Sequence

import demiglace
from demiglace.passes import Provides, SourceSpec
from demiglace_sources.artifact import ArtifactConfig
from demiglace_sources.fake import FakeConfig
from demiglace_sources.folder import FolderConfig
from demiglace_sources.lenet import LenetConfig
from demiglace_sources.mlp import MlpConfig
from demiglace_sources.mnist5k import Mnist5kConfig
from demiglace_sources.npz import NpzConfig
from demiglace_sources.python_code import PythonConfig
from demiglace_sources.torchvision_data import TorchvisionDataConfig
from demiglace_sources.torchvision_models import TorchvisionModelConfig

_MODELS = (
    SourceSpec(
        "mlp",
        Provides.MODEL,
        MlpConfig,
        "demiglace_sources.mlp:MlpSource",
        '[model]\nuse = "mlp"\nwidths = [784, 256, 128, 10]\n',
    ),
    SourceSpec(
        "lenet",
        Provides.MODEL,
        LenetConfig,
        "demiglace_sources.lenet:LenetSource",
        '[model]\nuse = "lenet"\nvariant = "lenet-5"\n',
    ),
    SourceSpec(
        "torchvision",
        Provides.MODEL,
        TorchvisionModelConfig,
        "demiglace_sources.torchvision_models:TorchvisionModelSource",
        '[model]\nuse = "torchvision"\nname = "resnet18"\nweights = "DEFAULT"\n',
    ),
    SourceSpec(
        "artifact",
        Provides.MODEL,
        ArtifactConfig,
        "demiglace_sources.artifact:ArtifactSource",
        '[model]\nuse = "artifact"\npath = "runs/first"\n',
    ),
    SourceSpec(
        "python",
        Provides.MODEL,
        PythonConfig,
        "demiglace_sources.python_code:PythonSource",
        '[model]\nuse = "python"\npath = "net.py"\nfactory = "make_net"\noptions = { depth = 3 }\n',
    ),
)
_DATA = (
    SourceSpec(
        "mnist5k",
        Provides.DATA,
        Mnist5kConfig,
        "demiglace_sources.mnist5k:Mnist5kSource",
        '[data]\nuse = "mnist5k"\nbatch_size = 64\n',
    ),
    SourceSpec(
        "torchvision",
        Provides.DATA,
        TorchvisionDataConfig,
        "demiglace_sources.torchvision_data:TorchvisionDataSource",
        '[data]\nuse = "torchvision"\nname = "MNIST"\nroot = "data"\ndownload = true\n',
    ),
    SourceSpec(
        "folder",
        Provides.DATA,
        FolderConfig,
        "demiglace_sources.folder:FolderSource",
        '[data]\nuse = "folder"\npath = "flowers"\ntransform = [{ name = "Resize", size = [224, 224] }]\n',
    ),
    SourceSpec(
        "npz",
        Provides.DATA,
        NpzConfig,
        "demiglace_sources.npz:NpzSource",
        '[data]\nuse = "npz"\npath = "mnist.npz"\nlayout = "nhw"\n',
    ),
    SourceSpec(
        "fake",
        Provides.DATA,
        FakeConfig,
        "demiglace_sources.fake:FakeSource",
        '[data]\nuse = "fake"\nshape = [3, 32, 32]\n',
    ),
)


@demiglace.hookimpl
def demiglace_sources() -> Sequence[SourceSpec]:
    """The sources of this plugin."""
    return (*_MODELS, *_DATA)
