"""What runs exported files as models, one runtime a file."""

from __future__ import annotations

from demiglace.passes import RuntimeSpec

ONNX = RuntimeSpec(
    "onnx",
    (".onnx",),
    f"{__name__}.onnx:load",
    exporter="export.onnx",
    requires=("onnxruntime",),
    install="demiglace[onnx]",
    precisions=("fp32",),
)
OPENVINO = RuntimeSpec(
    "openvino",
    (".xml",),
    f"{__name__}.openvino:load",
    exporter="export.openvino",
    requires=("openvino",),
    install="demiglace[openvino]",
)
