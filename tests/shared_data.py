"""The reference models and data that lie beside the checkout; absent on most machines."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("QUANTSTUDIO_SHARED", Path(__file__).parents[2] / "shared" / "data"))
MODELS = SHARED / "models"
THIRD_PARTY = SHARED / "third_party"
TRAIN = SHARED / "fashion_mnist_train.npz"
TEST = SHARED / "fashion_mnist_test.npz"
TRANSFORM = "scale=1/255 mean=0.2860 std=0.3530 layout=NCHW"

needs_shared = pytest.mark.skipif(not MODELS.is_dir(), reason="reference models are not beside the checkout")
