"""Old projects keep their figures: keys of what the user says nothing about stay what they were."""

from dataclasses import replace

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.findings import (
    SENSITIVITY,
    data_identity,
    measurement_key,
    search_key,
    sensitivity_key,
)
from quantstudio.core.judgement import Judging, Task

SPEC = DataSpec("a.npz")


def test_that_keys_of_what_nobody_said_anything_about_are_those_of_before() -> None:
    data = data_identity(SPEC, "c")
    assert data == "d883a36f8f55bc01be6ed250ecad1a22c5545402ef8399334644dfe5a0cdd496"
    found = [
        sensitivity_key(SENSITIVITY, "g", data, 512),
        search_key("g", data, ""),
        measurement_key("v", data),
    ]
    assert found == [
        "b0ddb4d4ed219d5e443efe873be106bc38e99bfb6f88781cc8c6729da7562bfd",
        "63cb913ab47f14d2f7831c0443b3cd7a574de9178c5a8c28ffe12ef4716d57a3",
        "bf9f2c77a69728328b7d6ab96889d3d6ac5e72ccb96200fbc1edf72ef57c3db3",
    ]


def test_that_axes_belong_to_the_data_and_the_task_to_what_is_judged() -> None:
    plain = data_identity(SPEC, "c")
    assert data_identity(replace(SPEC, batch_axes=(("state", 1),)), "c") != plain
    assert data_identity(replace(SPEC, judging=Judging(Task.DETECT)), "c") == plain
    said = Judging(output="logits")
    assert measurement_key("v", plain, said) != measurement_key("v", plain)
    assert search_key("g", plain, "", (), None, said) != search_key("g", plain, "")
    assert sensitivity_key(SENSITIVITY, "g", plain, 1, said) != sensitivity_key(SENSITIVITY, "g", plain, 1)
