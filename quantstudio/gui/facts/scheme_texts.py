"""What menus call the schemes a layer can have."""

from __future__ import annotations

SCHEME_TEXTS = {
    "fp32": "FP32",
    "fp16": "FP16 weights",
    "static-int8": "INT8",
    "dynamic-int8": "INT8, ranges at run time",
    "weight-int8": "INT8 weights only",
    "weight-int4": "INT4 weights only",
    "static-int4": "INT4 weights, INT8 activations",
}
