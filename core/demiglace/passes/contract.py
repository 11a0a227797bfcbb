"""What a pass needs of the model and the data, what it gives, and what it destroys."""

from __future__ import annotations

from dataclasses import dataclass

WEIGHTS_FLOAT = "weights.float"
"""Weights are floating-point parameters."""
WEIGHTS_MASKED = "weights.masked"
"""Some weights are held at zero by masks."""
WEIGHTS_QUANTIZED = "weights.quantized"
"""Some weights are integers."""
WEIGHTS_BFLOAT16 = "weights.bfloat16"
WEIGHTS_FLOAT16 = "weights.float16"
"""Weights are floating-point parameters of 16 bits."""
WEIGHTS_EXCHANGEABLE = "weights.exchangeable"
"""Files of other runtimes have a form of every tensor's dtype; of bfloat16 most have none."""
PRODUCTS_INT8 = "products.int8"
"""Some layers multiply integers."""
MODEL_TRAINABLE = "model.trainable"
"""Gradients can flow through the model."""
DATA_TRAIN = "data.train"
DATA_CALIBRATION = "data.calibration"
DATA_VALIDATION = "data.validation"
DATA_TEST = "data.test"
DATA_FIXED = "data.fixed"
"""The training examples are the same in each epoch: nothing random changes them."""
LABELS = "labels"
"""The data has a label for every example."""
TEACHER = "teacher"
"""The recipe names a teacher."""
ORIGINAL = "original"
"""An editor has worked on the model since its last training: the engine knows what it was before. The
engine adds this fact to the contracts of editors, and takes it away after a trainer."""
CONTROL = "control"
"""The model without compression, trained for as long: the engine keeps one for a trainer that wants it."""
BASELINE = "baseline"
"""The model before the first pass: the engine keeps a copy for a step that wants it."""


@dataclass(frozen=True)
class Contract:
    """Facts as open strings, so that passes of different plugins combine without knowing each other.

    The planner starts from the facts that the model and the data source give, checks each pass's
    `needs` against them, then removes what it `destroys` and adds what it `gives`.
    """

    needs: frozenset[str] = frozenset()
    gives: frozenset[str] = frozenset()
    destroys: frozenset[str] = frozenset()
    #: Facts that the pass uses where they hold, and can do without.
    wants: frozenset[str] = frozenset()
    #: Facts that nothing else which takes part in the same training may give.
    excludes: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        *,
        needs: tuple[str, ...] = (),
        gives: tuple[str, ...] = (),
        destroys: tuple[str, ...] = (),
        wants: tuple[str, ...] = (),
        excludes: tuple[str, ...] = (),
    ) -> Contract:
        """A contract from tuples."""
        return cls(*map(frozenset, (needs, gives, destroys, wants, excludes)))

    def __or__(self, other: Contract) -> Contract:
        """What two passes at work together need, give, destroy, want and exclude."""
        return Contract(
            self.needs | other.needs,
            self.gives | other.gives,
            self.destroys | other.destroys,
            self.wants | other.wants,
            self.excludes | other.excludes,
        )

    def after(self, facts: frozenset[str]) -> frozenset[str]:
        """The facts that hold once the pass has run."""
        return (facts - self.destroys) | self.gives
