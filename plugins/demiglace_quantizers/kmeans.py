"""`share.kmeans`: training with weights that share a few values.

The second stage of Deep Compression (Han, Mao and Dally 2016), with weights that may change their cluster
while the centroids are trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from demiglace.passes import (
    Contract,
    Kind,
    Loop,
    Moment,
    Participant,
    PassSpec,
    Position,
    Problem,
    Targeted,
    moment_steps,
    moment_words,
)
from demiglace_quantizers._layers import problems

if TYPE_CHECKING:
    from demiglace.graph import Edit, ModelGraph


class KmeansConfig(Targeted):
    """Cluster the weights of each layer in training: in the end they share a few values.

    Zeros stay zero. A layer ends with a codebook and the number of an entry for each weight, in as many bits
    as that takes; `export.packed` codes the numbers closer. Pruners of weights can take part beside it;
    structures are cut before.
    """

    clusters: Annotated[int, Field(ge=1, le=255)] = 15
    """Values that each weight tensor has besides 0."""
    bias_clusters: Annotated[int, Field(ge=1, le=255)] | None = None
    """Values that the bias of each layer has besides 0; without it biases stay as they are. In a small
    file they weigh as much as the weights."""
    start: Moment = 0.5
    """From when on weights share: a share of the training, `"3 epochs"`, or `"500 steps"`. Pruning that
    takes part should be over by then."""

    def contract(self) -> Contract:
        whole = self.targets == ["*"] and not self.ignore
        return Contract.of(
            needs=("weights.float",),
            gives=("weights.quantized", "weights.shared"),
            destroys=("model.trainable", "weights.float", "weights.masked") if whole else (),
        )

    def words(self) -> str:
        biases = "" if self.bias_clusters is None else f", its bias {self.bias_clusters} and 0,"
        start = moment_words(self.start)
        return f"the weights of a layer share {self.clusters} values and 0{biases} from {start} on"


class Kmeans(Participant[KmeansConfig]):
    """Swaps layers for ones that train centroids in `prepare`, and for ones with codebooks in `finish`."""

    def preflight(self, model: ModelGraph) -> Iterator[Problem]:
        return problems(model, self.config)

    @property
    def settled(self) -> bool:
        return self._sharing.begun

    def prepare(self, loop: Loop) -> None:
        from demiglace_quantizers._sharing import Sharing

        at = loop.at
        self._sharing = Sharing(loop, self.config)
        self._start = moment_steps(self.config.start, at.steps, at.steps_per_epoch)

    def before_step(self, at: Position) -> None:
        if at.step >= self._start and not self._sharing.begun:
            self._sharing.begin()

    def finish(self) -> Iterable[Edit]:
        return self._sharing.codebooks()

    def state(self) -> Mapping[str, object]:
        return {"begun": self._sharing.begun}

    def restore_state(self, state: Mapping[str, Any]) -> None:
        if state["begun"]:
            self._sharing.go_on()


SPEC = PassSpec(
    "share.kmeans",
    Kind.PARTICIPANT,
    KmeansConfig,
    "demiglace_quantizers.kmeans:Kmeans",
    """\
[[pass]]
use = "train.supervised"
epochs = 3

[[pass.with]]
use = "share.kmeans"
clusters = 15
""",
)
