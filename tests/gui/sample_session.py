"""A session filled with made-up values: a view is tested on what it shows, not on what an engine found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from quantstudio.core.data_spec import DataSpec
from quantstudio.core.precision import STATIC_INT4
from quantstudio.core.recipe import uniform_recipe
from quantstudio.core.results import (
    SensitivityResult,
)
from quantstudio.gui.session import Session
from tests.workspace.putting import (
    put_activations,
    put_build,
    put_comparison,
    put_costs,
    put_sensitivity,
    put_sensitivity_run,
    put_weights,
)
from tests.workspace.samples import (
    CURVE,
    IdleRunner,
    activations,
    built,
    cost_table,
    model_summary,
    sensitivity,
    variant_result,
    weight_statistics,
)

_open: list[Session] = []


def close_sample_sessions() -> None:
    """Close every session made here; a fixture does it after each test."""
    while _open:
        _open.pop().close()


def analysed_session(count: int = 24) -> Session:
    """A model with everything known of its layers, nothing built."""
    session = Session(IdleRunner)
    _open.append(session)
    model = model_summary(count)
    session.workspace.opening.set_model(model)
    session.workspace.opening.set_data(DataSpec("train.npz"), DataSpec("test.npz"))
    put_weights(session.workspace, [weight_statistics(info, i) for i, info in enumerate(model.layers)])
    put_activations(session.workspace, activations(model))
    rows = [sensitivity(info, i) for i, info in enumerate(model.layers)]
    put_sensitivity(session.workspace, rows, CURVE)
    put_costs(session.workspace, cost_table(model))
    return session


CLASS_NAMES = (
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Boot",
)


def with_classes(session: Session, count: int) -> None:
    """Give every analyzed layer figures of so many classes, as a finished run does."""
    rng = np.random.default_rng(3)
    names = CLASS_NAMES if count == len(CLASS_NAMES) else tuple(f"class {i}" for i in range(count))
    rows = tuple(
        replace(row, by_class=tuple((row.kl * rng.lognormal(0, 0.8, count)).tolist()))
        for row in session.workspace.layer_sensitivity.values()
    )
    put_sensitivity_run(session.workspace, SensitivityResult("fisher", 512, 1.0, "int4", rows, classes=names))


def measured_session(count: int = 24) -> Session:
    """The same with three variants built and measured; the newest is of the recipe as it is."""
    session = analysed_session(count)
    model = session.workspace.model
    assert model is not None
    base = variant_result("FP32", model.graph_path, 0.924, model.file_bytes, 18.4, is_base=True)
    mixed = session.workspace.recipe.assign(
        [info.name for info in model.layers[:6] if "static-int4" in info.schemes], STATIC_INT4
    )
    put_build(session.workspace, built(model, "INT4 mixed", mixed, model.file_bytes // 5))
    put_build(
        session.workspace,
        built(model, "Dynamic", uniform_recipe("dynamic-int8"), model.file_bytes // 4 + 9000),
    )
    put_build(session.workspace, built(model, "INT8", session.workspace.recipe, model.file_bytes // 4))
    put_comparison(
        session.workspace,
        base,
        {
            "INT8.onnx": variant_result("INT8", "INT8.onnx", 0.9215, model.file_bytes // 4, 6.9),
            "Dynamic.onnx": variant_result(
                "Dynamic", "Dynamic.onnx", 0.9238, model.file_bytes // 4 + 9000, 9.8
            ),
            "INT4 mixed.onnx": variant_result(
                "INT4 mixed", "INT4 mixed.onnx", 0.911, model.file_bytes // 5, 6.7
            ),
        },
    )
    return session
