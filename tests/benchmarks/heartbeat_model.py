"""A made-up network of hundreds of small layers, with the digits to run it on."""

import subprocess
import sys
from pathlib import Path

import numpy as np

CHANNELS = 8
CLASSES = 10
KERNELS = (3, 1, 3)


def make_in_a_process(folder, layers) -> list[str]:
    """Write the network without importing onnx here; returns MODEL TRAIN TEST TRANSFORM."""
    from quantstudio.core.samples import sample

    path = Path(folder) / f"made_up_{layers}.onnx"
    command = [sys.executable, "-m", "tests.benchmarks.heartbeat_model", str(path), str(layers)]
    subprocess.run(command, check=True)
    digits = sample("digits_resnet")
    return [str(path), str(digits.train), str(digits.test), digits.transform]


def write(path, layers) -> None:
    """Blocks of convolutions with shortcuts on 8x8 images, then one linear layer; weights are random."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights = [], []

    def weight(name, shape, scale):
        values = rng.standard_t(6, shape) * scale
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(index, source, inputs, kernel):
        name = f"stage{index // 60}/block{index // 3}/conv{index % 3}"
        scale = 0.5 / np.sqrt(inputs * kernel * kernel)
        names = [
            source,
            weight(f"{name}.weight", (CHANNELS, inputs, kernel, kernel), scale),
            weight(f"{name}.bias", (CHANNELS,), 0.01),
        ]
        pads = [kernel // 2] * 4
        nodes.append(helper.make_node("Conv", names, [f"{name}_out"], name=name, pads=pads))
        return f"{name}_out"

    def relu(source):
        nodes.append(helper.make_node("Relu", [source], [f"{source}_relu"], name=f"{source}_relu"))
        return f"{source}_relu"

    now = relu(conv(0, "image", 1, 3))
    for start in range(1, layers - 1, 3):
        shortcut = now
        for index in range(start, min(start + 3, layers - 1)):
            now = relu(conv(index, now, CHANNELS, KERNELS[index % 3]))
        nodes.append(helper.make_node("Add", [now, shortcut], [f"{now}_sum"], name=f"{now}_sum"))
        now = f"{now}_sum"
    nodes.append(helper.make_node("GlobalAveragePool", [now], ["pooled"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"], name="flatten"))
    linear = [
        "features",
        weight("head.weight", (CHANNELS, CLASSES), 0.5),
        weight("head.bias", (CLASSES,), 0.1),
    ]
    nodes.append(helper.make_node("Gemm", linear, ["logits"], name="head"))
    graph = helper.make_graph(
        nodes,
        "made_up",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]))
