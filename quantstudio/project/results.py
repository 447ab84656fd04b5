"""What was computed in a project: results, results of single layers, variants, the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from quantstudio.core.errors import ProjectError
from quantstudio.core.events import Message, Severity
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import BuildResult, VariantResult
from quantstudio.project.database import Database
from quantstudio.project.values import dump, load, read

T = TypeVar("T")


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


def _alone(make: Callable[[str], T], text: str) -> tuple[T]:
    return (make(text),)


def _named(kind: str) -> str:
    return f"result {kind!r}"


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
        row = (kind, key, time.time(), dump(value))
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?)", row)

    def result(self, kind: str, key: str) -> Any | None:  # noqa: ANN401
        """JSON values of one result; None where there is none or it cannot be read."""
        text = self._text(kind, key)
        return None if text is None else self._readable(_named(kind), lambda: load(text, self._where))

    def result_as(self, form: type[T], kind: str, key: str) -> T | None:
        """One result as a value of core; None where there is none or it cannot be read."""
        text = self._text(kind, key)
        return None if text is None else self._readable(_named(kind), lambda: read(form, text, self._where))

    def results(self, kind: str) -> dict[str, Any]:
        """JSON values by key, the oldest first; without those that cannot be read."""
        rows = self._database.rows("SELECT key, value FROM result WHERE kind = ? ORDER BY created", kind)
        return self._each(kind, rows, lambda text: load(text, self._where))

    def put_layer_results(self, kind: str, key: str, values: Mapping[str, Any]) -> None:
        """Keep results by layer; all or none."""
        rows = [(kind, key, layer, dump(value)) for layer, value in values.items()]
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO layer_result VALUES (?, ?, ?, ?)", rows)

    def layer_results(self, kind: str, key: str) -> dict[str, Any]:
        """JSON values by layer, without those that cannot be read."""
        return self._each(kind, self._layer_rows(kind, key), lambda text: load(text, self._where))

    def layer_results_as(self, form: type[T], kind: str, key: str) -> dict[str, T]:
        """Values of core by layer, without those that cannot be read."""
        return self._each(kind, self._layer_rows(kind, key), lambda text: read(form, text, self._where))

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
        """Every variant, the oldest first, without those that cannot be read."""
        rows = self._database.rows("SELECT * FROM variant ORDER BY created, rowid")
        found = (self._readable(f"variant {row[1]!r}", partial(self._variant, *row)) for row in rows)
        return tuple(variant for variant in found if variant is not None)

    def add_messages(self, messages: Iterable[Message]) -> None:
        """Append to the log."""
        rows = [(time.time(), message.severity.value, message.text) for message in messages]
        with self._database.transaction() as connection:
            connection.executemany("INSERT INTO log (created, severity, text) VALUES (?, ?, ?)", rows)

    def messages(self, limit: int) -> tuple[LoggedMessage, ...]:
        """The newest lines of the log, the oldest of them first."""
        rows = self._database.rows("SELECT created, severity, text FROM log ORDER BY id DESC LIMIT ?", limit)
        known = {severity.value for severity in Severity}
        return tuple(
            LoggedMessage(Message(Severity(severity) if severity in known else Severity.INFO, text), created)
            for created, severity, text in reversed(rows)
        )

    def put_setting(self, key: str, value: Any) -> None:  # noqa: ANN401
        """Keep a setting of this project."""
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (key, dump(value)))

    def setting(self, key: str, default: Any = None) -> Any:  # noqa: ANN401
        """JSON values of a setting; the default where there is none or it cannot be read."""
        rows = self._database.rows("SELECT value FROM setting WHERE key = ?", key)
        if not rows:
            return default
        found = self._readable(f"setting {key!r}", lambda: (load(rows[0][0], self._where),))
        return default if found is None else found[0]

    def _text(self, kind: str, key: str) -> str | None:
        rows = self._database.rows("SELECT value FROM result WHERE kind = ? AND key = ?", kind, key)
        return rows[0][0] if rows else None

    def _layer_rows(self, kind: str, key: str) -> list[tuple[str, str]]:
        return self._database.rows(
            "SELECT layer, value FROM layer_result WHERE kind = ? AND key = ?", kind, key
        )

    def _each(self, kind: str, rows: Iterable[tuple[str, str]], make: Callable[[str], T]) -> dict[str, T]:
        found = {}
        for name, text in rows:
            # In a tuple: JSON has a null of its own. Under one name: a kind may have a result a layer.
            value = self._readable(_named(kind), partial(_alone, make, text))
            if value is not None:
                found[name] = value[0]
        return found

    def _readable(self, what: str, make: Callable[[], T]) -> T | None:
        return self._database.readable(what, make)

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
