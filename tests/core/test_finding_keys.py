"""Old projects keep their figures: keys of what the user says nothing about stay what they were.

Those of sensitivity and searches changed once: below 8 bits all 2^b levels are used now.
"""

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
        "114fe8f94d9c0c23219c927578b5db74388bd491005978158b400821541358a2",
        "636154faf924e81ae1416931674b182aab97aeb01fb14244b865da2984f8f620",
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
