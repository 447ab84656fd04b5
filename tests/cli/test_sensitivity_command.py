"""`quantstudio sensitivity`: precisions, part of the layers, both directions, what is known from before."""

import json

import pytest

from quantstudio.cli.main import invoke
from quantstudio.core.samples import sample

SAMPLE = sample("digits_resnet")
BASE = ["sensitivity", str(SAMPLE.model), "--data", str(SAMPLE.train), "--transform", SAMPLE.transform]
FEW = [*BASE, "--samples", "48"]
pytestmark = pytest.mark.usefixtures("one_cache")


def document(capsys, *arguments):
    assert invoke([*FEW, *arguments, "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def test_that_precisions_are_chosen_by_name(capsys):
    found = document(capsys, "--precisions", "fp16, int3,int4+int8-activations", "--reference", "int3")
    assert found["precisions"] == ["fp16", "int3", "int4+int8-activations"]
    for row in found["layers"]:
        assert set(row["by_precision"]) == set(found["precisions"])
        assert row["kl"] == row["by_precision"]["int3"]
        assert len(row["by_class"]) == len(found["classes"]) == 10


def test_that_the_worst_layers_are_measured_in_both_directions(capsys):
    estimates = document(capsys)["layers"]
    worst = max(estimates, key=lambda row: row["kl"])["name"]
    found = document(capsys, "--top", "1", "--all-but", "--accumulated")
    assert found["method"] == "exact"
    assert [row["name"] for row in found["layers"]] == [worst]
    assert 0 < found["layers"][0]["kl_all_but"] < found["kl_all"]
    assert found["layers"][0]["accumulated_sqnr_db"] is not None
    assert invoke([*FEW, "--top", "1", "--all-but", "--accumulated"]) == 0
    says = " ".join(capsys.readouterr().out.split())
    for words in ("KL all but", "accumulated, dB", "worst class", "all layers together"):
        assert words in says


def test_that_named_layers_are_measured(capsys):
    names = [row["name"] for row in document(capsys)["layers"]][:2]
    found = document(capsys, "--layers", ",".join(names))
    assert [row["name"] for row in found["layers"]] == names
    assert found["provenance"] == "measured"


def test_that_fresh_computes_again_and_finds_the_same(capsys):
    known, fresh = document(capsys), document(capsys, "--fresh")
    assert known["layers"] == fresh["layers"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--precisions", "int7"], "does not know precision"),
        (["--precisions", ","], "--precisions ',' names nothing"),
        (["--layers", ""], "--layers '' names nothing"),
        (["--layers", "nowhere"], "not a quantizable layer"),
        (["--method", "fisher", "--all-but"], "all layers at once"),
    ],
)
def test_that_a_wrong_question_is_refused(capsys, arguments, says):
    assert invoke([*FEW, *arguments]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
