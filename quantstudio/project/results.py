"""What was computed in a project: results, results of single layers, variants, the log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from quantstudio.core.errors import ProjectError
from quantstudio.core.events import Message, Severity
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import BuildResult, VariantResult
from quantstudio.project.database import Database
from quantstudio.project.values import dump, load, read


@dataclass(frozen=True, slots=True)
class Variant:
    """A model that was built in this project.

    Attributes:
        variant: Hash of (graph, statistics, recipe); its identity.
        name: Name on the screen.
        plan: Plan it was built from.
        recipe: Recipe it was built with, whatever became of the plan since.
        statistics_digest: Statistics its ranges came from; empty without.
        path: The ONNX file.
        build: What building it gave.
        result: What measuring it gave; None until then.
        created: Seconds since the epoch.
    """

    variant: str
    name: str
    plan: str
    recipe: Recipe
    path: str
    build: BuildResult
    result: VariantResult | None = None
    created: float = 0.0
    statistics_digest: str = ""


@dataclass(frozen=True, slots=True)
class LoggedMessage:
    """A line of the log; `created` is in seconds since the epoch."""

    message: Message
    created: float


class ResultStore:
    """Results by kind and key; a key names what they hold for (digest of graph, data, recipe).

    Args:
        database: An open project.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._where = str(database.path)

    def put_result(self, kind: str, key: str, value: Any) -> None:  # noqa: ANN401
        """Keep a result (JSON or a value of core); an older one of that kind and key is replaced."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?)", (kind, key, time.time(), dump(value))
            )

    def result(self, kind: str, key: str) -> Any | None:  # noqa: ANN401
        """JSON values of one result, or None."""
        rows = self._database.rows("SELECT value FROM result WHERE kind = ? AND key = ?", kind, key)
        return load(rows[0][0], self._where) if rows else None

    def results(self, kind: str) -> dict[str, Any]:
        """JSON values by key, the oldest first."""
        rows = self._database.rows("SELECT key, value FROM result WHERE kind = ? ORDER BY created", kind)
        return {key: load(value, self._where) for key, value in rows}

    def put_layer_results(self, kind: str, key: str, values: Mapping[str, Any]) -> None:
        """Keep results by layer; all or none."""
        rows = [(kind, key, layer, dump(value)) for layer, value in values.items()]
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO layer_result VALUES (?, ?, ?, ?)", rows)

    def layer_results(self, kind: str, key: str) -> dict[str, Any]:
        """JSON values by layer."""
        rows = self._database.rows(
            "SELECT layer, value FROM layer_result WHERE kind = ? AND key = ?", kind, key
        )
        return {layer: load(value, self._where) for layer, value in rows}

    def drop_results(self, kind: str, key: str | None = None) -> None:
        """Forget results and layer results of a kind, or of one key."""
        with self._database.transaction() as connection:
            for table in ("result", "layer_result"):
                connection.execute(
                    f"DELETE FROM {table} WHERE kind = ? AND (? IS NULL OR key = ?)", (kind, key, key)
                )

    def put_variant(self, variant: Variant) -> None:
        """Keep a variant; one of the same hash keeps its place in time and is otherwise replaced."""
        result = None if variant.result is None else dump(variant.result)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO variant VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (variant) DO UPDATE SET"
                " name = excluded.name, plan = excluded.plan, recipe = excluded.recipe,"
                " statistics = excluded.statistics,"
                " path = excluded.path, build = excluded.build, result = excluded.result",
                (
                    variant.variant,
                    variant.name,
                    variant.plan,
                    dump(variant.recipe),
                    variant.statistics_digest,
                    variant.path,
                    dump(variant.build),
                    result,
                    variant.created or time.time(),
                ),
            )

    def set_variant_result(self, variant: str, result: VariantResult) -> None:
        """Keep what measuring a variant gave.

        Raises:
            ProjectError: there is no such variant.
        """
        self._update_variant(variant, "result", dump(result))

    def rename_variant(self, variant: str, name: str) -> None:
        """Give a variant another name on the screen.

        Raises:
            ProjectError: there is no such variant.
        """
        self._update_variant(variant, "name", name)

    def remove_variant(self, variant: str) -> None:
        """Forget a variant; its file stays."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM variant WHERE variant = ?", (variant,))

    def variants(self) -> tuple[Variant, ...]:
        """Every variant, the oldest first."""
        rows = self._database.rows("SELECT * FROM variant ORDER BY created, rowid")
        return tuple(self._variant(*row) for row in rows)

    def add_messages(self, messages: Iterable[Message]) -> None:
        """Append to the log."""
        rows = [(time.time(), message.severity.value, message.text) for message in messages]
        with self._database.transaction() as connection:
            connection.executemany("INSERT INTO log (created, severity, text) VALUES (?, ?, ?)", rows)

    def messages(self, limit: int) -> tuple[LoggedMessage, ...]:
        """The newest lines of the log, the oldest of them first."""
        rows = self._database.rows("SELECT created, severity, text FROM log ORDER BY id DESC LIMIT ?", limit)
        return tuple(
            LoggedMessage(Message(Severity(severity), text), created)
            for created, severity, text in reversed(rows)
        )

    def put_setting(self, key: str, value: Any) -> None:  # noqa: ANN401
        """Keep a setting of this project."""
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (key, dump(value)))

    def setting(self, key: str, default: Any = None) -> Any:  # noqa: ANN401
        """JSON values of a setting, or the default."""
        rows = self._database.rows("SELECT value FROM setting WHERE key = ?", key)
        return load(rows[0][0], self._where) if rows else default

    def _update_variant(self, variant: str, column: str, value: str) -> None:
        with self._database.transaction() as connection:
            changed = connection.execute(
                f"UPDATE variant SET {column} = ? WHERE variant = ?", (value, variant)
            ).rowcount
            if not changed:
                raise ProjectError("the project holds no such variant", where=variant)

    def _variant(
        self,
        variant: str,
        name: str,
        plan: str,
        recipe: str,
        statistics: str,
        path: str,
        build: str,
        result: str | None,
        created: float,
    ) -> Variant:
        return Variant(
            variant,
            name,
            plan,
            read(Recipe, recipe, self._where),
            path,
            read(BuildResult, build, self._where),
            None if result is None else read(VariantResult, result, self._where),
            created,
            statistics,
        )
