"""The list of features; one more is one line here."""

from __future__ import annotations

from quantstudio.gui.features.compare.feature import FEATURE as COMPARE
from quantstudio.gui.features.data.feature import FEATURE as DATA
from quantstudio.gui.features.export.feature import FEATURE as EXPORT
from quantstudio.gui.features.improve.feature import FEATURE as IMPROVE
from quantstudio.gui.features.inspect.feature import FEATURE as INSPECT
from quantstudio.gui.features.jobs.feature import FEATURE as JOBS
from quantstudio.gui.features.layers.feature import FEATURE as LAYERS
from quantstudio.gui.features.plans.feature import FEATURE as PLANS
from quantstudio.gui.features.search.feature import FEATURE as SEARCH
from quantstudio.gui.features.sensitivity.feature import FEATURE as SENSITIVITY
from quantstudio.gui.features.start.feature import FEATURE as START
from quantstudio.gui.features.tradeoff.feature import FEATURE as TRADEOFF

FEATURES = (
    INSPECT,
    SENSITIVITY,
    IMPROVE,
    TRADEOFF,
    SEARCH,
    COMPARE,
    DATA,
    START,
    PLANS,
    JOBS,
    EXPORT,
    LAYERS,
)
