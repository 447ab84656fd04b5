"""What people call a layer, in files of several exporters."""

from __future__ import annotations

import pytest
from onnx import helper

from quantstudio.core.layers import LayerInfo
from quantstudio.core.recipe import LayerRule
from quantstudio.core.schemes import NAMED_SCHEMES
from quantstudio.engine.model.layer_labels import labelled, module_path

INT8 = NAMED_SCHEMES["static-int8"]


@pytest.mark.parametrize(
    ("node", "op_type", "parameters", "path"),
    [
        ("node_Conv_140", "Conv", ["layer1.conv1.weight", "layer1.conv1.weight_bias"], "layer1.conv1"),
        ("node_MatMul_7", "MatMul", ["val_8", "layers.0.attn.q.bias"], "layers.0.attn.q"),
        ("node_MatMul_1", "MatMul", ["val_0", "blocks.0.att.in_proj_bias"], "blocks.0.att"),
        ("lstm", "LSTM", ["rnn.weight_ih_l0", "onnx::LSTM_9"], "rnn"),
        ("/layer2/short/short.0/Conv", "Conv", ["onnx::Conv_497"], "layer2.short.0"),
        ("/model.0/conv/Conv", "Conv", ["391"], "model.0.conv"),
        ("/attn/MatMul_1", "MatMul", [], "attn.MatMul_1"),
        ("Conv_41", "Conv", ["878"], ""),
        ("p2o.Conv.0", "Conv", ["conv2d_0.w_0"], ""),
        ("stage0/BiasAdd", "Conv", ["stage0/BiasAdd_weights_fused_bn"], ""),
    ],
)
def test_that_a_label_is_the_path_the_exporter_kept(node, op_type, parameters, path):
    made = helper.make_node(op_type, [], [], name=node)
    assert module_path(made, parameters, has_weight=bool(parameters)) == path


def test_that_no_two_layers_share_a_label():
    layers = [
        LayerInfo("a", "Gather", label="embed"),
        LayerInfo("b", "MatMul", label="embed"),
        LayerInfo("c", "Conv", label="twice"),
        LayerInfo("d", "Conv", label="twice"),
        LayerInfo("e", "Conv", label="a"),
        LayerInfo("f", "Conv", label="own"),
    ]
    titles = [layer.title for layer in labelled(layers)]
    assert titles == ["embed.Gather", "embed.MatMul", "c", "d", "e", "own"]


def test_that_a_rule_may_be_written_in_the_words_of_the_table():
    layers = [LayerInfo(f"node_{i}", "Conv", label=f"layer{i}.conv") for i in range(2)]
    assert [LayerRule(INT8, ("layer1.*",)).matches(layer) for layer in layers] == [False, True]
    assert LayerRule(INT8, ("layer0.conv", "node_1")).by_node(layers).names == ("node_0", "node_1")
    assert LayerRule(INT8, ("node_0", "node_1")).by_title(layers).label.startswith("layer0.conv, ")
    assert LayerRule(INT8, ("node_*",)).by_title(layers).names == ("node_*",)
