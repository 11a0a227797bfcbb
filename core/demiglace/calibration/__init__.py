"""Statistics of layers, gathered by running data through the model once for all who need them."""

from demiglace.calibration.batches import CalibrationBatches, calibration_batches, in_parts
from demiglace.calibration.beside import calibrate_beside
from demiglace.calibration.calls import Calls
from demiglace.calibration.changes import branch_changes
from demiglace.calibration.collector import Collector, GradientCollector, TensorCollector
from demiglace.calibration.gradients import Taylor
from demiglace.calibration.gram import InputGram, InputsOf, OutputGram, PairedGram
from demiglace.calibration.histogram import Histogram
from demiglace.calibration.least_squares import LeastSquares, Solution
from demiglace.calibration.moments import Moments
from demiglace.calibration.normal_equations import NormalEquations, normal_equations
from demiglace.calibration.order import execution_order
from demiglace.calibration.ranges import Ranges
from demiglace.calibration.replay import Replay
from demiglace.calibration.rows import has_input_rows, input_rows
from demiglace.calibration.run import calibrate
from demiglace.calibration.sensitivity import projected, row_sensitivities
from demiglace.calibration.several import Several
from demiglace.calibration.solvable import solvable_stages
from demiglace.calibration.statistics import Inputs, Statistics, layer_of_weight
from demiglace.calibration.undisturbed import differentiable, undisturbed
from demiglace.calibration.zeros import ZeroShare

__all__ = [
    "CalibrationBatches",
    "Calls",
    "Collector",
    "GradientCollector",
    "Histogram",
    "InputGram",
    "Inputs",
    "InputsOf",
    "LeastSquares",
    "Moments",
    "NormalEquations",
    "OutputGram",
    "PairedGram",
    "Ranges",
    "Replay",
    "Several",
    "Solution",
    "Statistics",
    "Taylor",
    "TensorCollector",
    "ZeroShare",
    "branch_changes",
    "calibrate",
    "calibrate_beside",
    "calibration_batches",
    "differentiable",
    "execution_order",
    "has_input_rows",
    "in_parts",
    "input_rows",
    "layer_of_weight",
    "normal_equations",
    "projected",
    "row_sensitivities",
    "solvable_stages",
    "undisturbed",
]
