"""The project file: what goes in comes out, also in the next process; nothing else is opened."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from quantstudio.core.data_spec import DataSpec, Transform
from quantstudio.core.errors import ProjectError
from quantstudio.core.findings import KNOWN_DATA, MEASUREMENT, SENSITIVITY
from quantstudio.core.findings import VARIANT as VARIANT_KIND
from quantstudio.core.folders import config_folder
from quantstudio.core.recipe import Recipe
from quantstudio.core.results import LayerSensitivity
from quantstudio.project import migrations
from quantstudio.project.migrations import APPLICATION_ID
from quantstudio.project.references import MissingFile, ReferenceKind, content_digest
from quantstudio.project.state import ProjectState
from quantstudio.project.store import Project
from tests.project.examples import MEASURED, RECIPE, VARIANT, note, put_note, summary_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.qstudio"


def files_beside(path: Path) -> set[str]:
    return {item.name for item in path.parent.iterdir()}


def test_that_a_new_project_is_one_file_once_closed(path: Path) -> None:
    with Project.create(path) as project:
        assert project.state.active == "Plan 1"
        assert not project.is_temporary
        assert not project.is_read_only
    project.close()
    assert files_beside(path) == {"net.qstudio"}
    header = path.read_bytes()[:100]
    assert int.from_bytes(header[68:72], "big") == APPLICATION_ID
    assert int.from_bytes(header[60:64], "big") == len(migrations.MIGRATIONS)


def test_that_everything_is_there_after_reopening(path: Path, tmp_path: Path) -> None:
    model, data = tmp_path / "m.onnx", tmp_path / "d.npz"
    model.write_bytes(b"model")
    data.write_bytes(b"data")
    spec = DataSpec(str(data), Transform(1 / 255, (0.2860,), (0.3530,), "NCHW", (8, 8)), 512, trusted=True)
    with Project.create(path) as project:
        project.set_model(summary_of(model), factory="nets:make", state="weights.pt")
        project.set_data("calibration", spec, content_digest(data))
        project.edit(project.state.with_recipe(RECIPE), "Set INT8")
        rows = {name: LayerSensitivity(name, 1, 0, 2, 30.0) for name in ("conv1", "conv2")}
        project.findings.put(SENSITIVITY, "key", rows)
        project.findings.put(SENSITIVITY, "key", {"conv2": LayerSensitivity("conv2", 2, 0, 2, 30.0)})
        project.findings.put(VARIANT_KIND, "hash", {"": VARIANT})
    with Project.open(path) as project:
        assert project.state.recipe == RECIPE
        reference = project.model
        assert reference is not None
        assert reference.summary == summary_of(model)
        assert (reference.path, reference.factory, reference.state) == (str(model), "nets:make", "weights.pt")
        stored = project.data(ReferenceKind.CALIBRATION)
        assert stored is not None
        # Whether the user agreed to run code is asked again.
        assert stored.spec == replace(spec, trusted=False)
        assert stored.digest == content_digest(data)
        assert project.data("test") is None
        kept = project.findings.rows(SENSITIVITY, "key")
        assert {name: row.kl for name, row in kept.items()} == {"conv1": 1.0, "conv2": 2.0}
        assert project.findings.rows(SENSITIVITY, "other") == {}
        assert project.findings.all(VARIANT_KIND) == {"hash": VARIANT}


def test_that_one_key_holds_many_rows_and_one_name_many_kinds(path: Path) -> None:
    with Project.create(path) as project:
        for key in ("a", "b"):
            project.findings.put(MEASUREMENT, key, {"cpu": MEASURED})
            project.findings.put(MEASUREMENT, key, {"gpu": replace(MEASURED, provider="gpu")})
        project.findings.put(VARIANT_KIND, "a", {"": replace(VARIANT, key="a")})
        project.findings.put(VARIANT_KIND, "a", {"": replace(VARIANT, key="a", name="Best")})
        assert list(project.findings.rows(MEASUREMENT, "a")) == ["cpu", "gpu"]
        assert [one.name for one in project.findings.all(VARIANT_KIND).values()] == ["Best"]
        project.findings.put(MEASUREMENT, "a", {"cpu": MEASURED})
        assert list(project.findings.rows(MEASUREMENT, "a")) == ["gpu", "cpu"]  # the newest is last


def test_that_any_thread_may_write(path: Path) -> None:
    with Project.create(path) as project:

        def write(key: str) -> None:
            for i in range(20):
                project.findings.put(KNOWN_DATA, key, {f"l{i}": str(i)})

        threads = [threading.Thread(target=write, args=(f"{t}",)) for t in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(len(project.findings.rows(KNOWN_DATA, f"{t}")) == 20 for t in range(4))


def test_that_a_name_sqlite_cannot_hold_is_refused_whole(path: Path) -> None:
    with Project.create(path) as project:
        with pytest.raises(ProjectError, match="not valid text"):
            project.findings.put(KNOWN_DATA, "k", {"fine": "1", "bad\udc80": "2"})
        assert project.findings.rows(KNOWN_DATA, "k") == {}
        put_note(project, "k", "bad\udc80")
        assert note(project, "k") == "bad\udc80"


# What is not opened.


def test_that_a_project_open_elsewhere_is_refused_but_can_be_looked_at(path: Path) -> None:
    with Project.create(path) as project:
        put_note(project, "a", "1")
        with pytest.raises(ProjectError, match="open in another window"):
            Project.open(path)
        with Project.open(path, read_only=True) as reader:
            assert note(reader, "a") == "1"
            assert reader.is_read_only
            with pytest.raises(ProjectError, match="reading only"):
                put_note(reader, "a", "2")
        put_note(project, "a", "3")
    with Project.open(path) as project:
        assert note(project, "a") == "3"


def test_that_another_process_is_kept_out_until_it_is_killed(path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from quantstudio.project.store import Project\n"
        "from tests.project.examples import put_note\n"
        "p = Project.create(Path(sys.argv[1])); put_note(p, 'a', '1'); print('open', flush=True)\n"
        "time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, env=environment
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(ProjectError, match="open in another window"):
            Project.open(path)
        other.kill()
    with Project.open(path) as project:
        assert note(project, "a") == "1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "there is no such project", id="missing"),
        pytest.param(b"", "not a QuantStudio project", id="empty"),
        pytest.param(b"just text", "not a QuantStudio project", id="text"),
        pytest.param(os.urandom(5000), "not a QuantStudio project", id="random"),
    ],
)
def test_that_a_file_that_is_no_project_is_refused_and_not_touched(
    path: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        path.write_bytes(content)
    for read_only in (False, True):
        with pytest.raises(ProjectError, match=message) as caught:
            Project.open(path, read_only=read_only)
        assert caught.value.where == str(path)
    assert files_beside(path) == (set() if content is None else {"net.qstudio"})
    if content is not None:
        assert path.read_bytes() == content


def test_that_a_folder_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="cannot be read"):
        Project.open(tmp_path)


def test_that_another_programs_database_is_refused_and_not_touched(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ProjectError, match="not a QuantStudio project"):
        Project.open(path)
    assert path.read_bytes() == before


def test_that_a_newer_project_is_refused_and_not_touched(path: Path) -> None:
    Project.create(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ProjectError, match=r"newer version \(format 99.*Update QuantStudio"):
        Project.open(path)
    assert path.read_bytes() == before


def test_that_an_older_project_is_converted_in_one_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Project.create(path) as project:
        put_note(project, "a", "1")
    old = migrations.MIGRATIONS
    new = (*old, ("CREATE TABLE note (text TEXT)", "INSERT INTO note VALUES ('from 2')"))
    monkeypatch.setattr(migrations, "MIGRATIONS", (*new, ("CREATE TABLE note (twice TEXT)",)))
    with pytest.raises(ProjectError, match="note"):
        Project.open(path)
    monkeypatch.setattr(migrations, "MIGRATIONS", new)
    with pytest.raises(ProjectError, match="older version"):
        Project.open(path, read_only=True)
    with Project.open(path) as project:
        assert note(project, "a") == "1"
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT text FROM note").fetchall() == [("from 2",)]
    assert connection.execute("PRAGMA user_version").fetchone() == (len(new),)
    connection.close()
    monkeypatch.setattr(migrations, "MIGRATIONS", old)
    with pytest.raises(ProjectError, match="newer version"):
        Project.open(path)


def test_that_a_project_with_triggers_is_refused(path: Path) -> None:
    Project.create(path).close()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TRIGGER t AFTER INSERT ON finding BEGIN DELETE FROM history; END")
    connection.commit()
    connection.close()
    with pytest.raises(ProjectError, match="holds 't'"):
        Project.open(path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anything")
def test_that_a_read_only_file_is_refused_for_writing(path: Path) -> None:
    Project.create(path).close()
    path.chmod(0o444)
    with pytest.raises(ProjectError, match="read-only"):
        Project.open(path)


def test_that_a_file_the_system_does_not_let_us_write_is_named_read_only(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Project.create(path).close()
    monkeypatch.setattr("quantstudio.project.database._is_writable", lambda path: False)
    with pytest.raises(ProjectError, match=r"the project file is read-only.*Copy it"):
        Project.open(path)
    with Project.open(path, read_only=True) as project:
        assert project.state.active == "Plan 1"


def test_that_an_existing_file_is_not_created_over(path: Path) -> None:
    path.write_bytes(b"mine")
    with pytest.raises(ProjectError, match="exists already"):
        Project.create(path)
    assert path.read_bytes() == b"mine"
    with pytest.raises(ProjectError, match="cannot write"):
        Project.create(path.parent / "no" / "net.qstudio")


def test_that_what_cannot_be_read_is_left_out_and_named_and_stays_in_the_file(path: Path) -> None:
    with Project.create(path) as project:
        project.edit(project.state.with_recipe(RECIPE), "Set INT8")
        for key, name in (("hash", "INT8"), ("other", "INT4")):
            project.findings.put(VARIANT_KIND, key, {"": replace(VARIANT, key=key, name=name)})
        put_note(project, "a", "1")
        put_note(project, "b", "2")
        project.set_data("test", DataSpec("data.npz"))
        rows = {name: LayerSensitivity(name, 1, 0, 2, 30.0) for name in ("one", "two", "three")}
        project.findings.put(SENSITIVITY, "k", rows)
    before = _values(path)
    _run(
        path,
        "UPDATE finding SET value = json_set(value, '$.recipe', json('{\"rulez\": []}')) WHERE key = 'hash'",
        "UPDATE finding SET value = 'oops' WHERE key = 'a'",
        "UPDATE data SET spec = '[]'",
        "UPDATE finding SET value = 'oops' WHERE row = 'three'",
        "UPDATE recipe SET recipe = '{\"rulez\": []}'",
    )
    damaged = _values(path)
    with Project.open(path) as project:
        assert [one.name for one in project.findings.all(VARIANT_KIND).values()] == ["INT4"]
        assert (note(project, "a"), note(project, "b")) == (None, "2")
        assert project.data("test") is None
        assert set(project.findings.rows(SENSITIVITY, "k")) == {"one", "two"}
        assert project.state == ProjectState()
        told = project.unreadable
        assert len(told) == 5
        assert all(text.startswith("net.qstudio: ") and "left out" in text for text in told)
        assert any("result 'variant'" in text and "unknown field 'rulez'" in text for text in told)
        assert any("plan 'Plan 1'" in text for text in told)
    assert _values(path) == damaged
    assert set(before) == set(damaged)


def test_that_a_model_that_cannot_be_described_is_opened_anew(path: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"model")
    with Project.create(path) as project:
        project.set_model(summary_of(tmp_path / "m.onnx"))
    _run(path, "UPDATE model SET summary = '{}'")
    with Project.open(path) as project:
        assert project.model is None
        assert f"the model {str(tmp_path / 'm.onnx')!r}" in project.unreadable[0]
        project.set_model(summary_of(tmp_path / "m.onnx"))
        assert project.model is not None


def test_that_undo_walks_past_a_plan_that_cannot_be_read(path: Path) -> None:
    with Project.create(path) as project:
        project.edit(project.state.with_recipe(RECIPE), "Set INT8")
        project.edit(project.state.with_recipe(Recipe()), "Set FP32")
    _run(path, "UPDATE recipe SET recipe = 'oops' WHERE recipe LIKE '%int8%'")
    with Project.open(path) as project:
        assert not project.unreadable
        assert project.undo()
        assert project.state == ProjectState()
        assert len(project.unreadable) == 1
        assert project.undo()
        assert project.redo()
        assert project.redo()
        assert project.state.recipe == Recipe()


def _run(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def _values(path: Path) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(path)
    tables = ("finding", "data", "recipe")
    found = {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in tables}
    connection.close()
    return found


def test_that_a_closed_project_says_so(path: Path) -> None:
    project = Project.create(path)
    project.close()
    with pytest.raises(ProjectError, match="closed"):
        put_note(project, "a", "1")
    with pytest.raises(ProjectError, match="closed"):
        note(project, "a")


# References.


def test_that_moved_files_are_missed_and_found_again(path: Path, tmp_path: Path) -> None:
    model, data, elsewhere = tmp_path / "a" / "m.onnx", tmp_path / "a" / "images", tmp_path / "b"
    data.mkdir(parents=True)
    (data / "cat").mkdir()
    (data / "cat" / "1.png").write_bytes(b"cat")
    model.write_bytes(b"model")
    with Project.create(path) as project:
        project.set_model(summary_of(model))
        project.set_data("test", DataSpec(str(data), samples=3), content_digest(data))
        project.set_data("calibration", DataSpec("package.module:make"))
        assert project.missing() == ()
        (tmp_path / "a").rename(elsewhere)
        assert project.missing() == (
            MissingFile(ReferenceKind.MODEL, str(model)),
            MissingFile(ReferenceKind.TEST, str(data)),
        )
        (tmp_path / "m.onnx").write_bytes(b"another model")
        assert project.missing()[0].candidate == str(tmp_path / "m.onnx")
        with pytest.raises(ProjectError, match="not the same file"):
            project.relocate("model", tmp_path / "m.onnx")
        with pytest.raises(ProjectError, match="cannot be read"):
            project.relocate("model", tmp_path / "nowhere.onnx")
        project.relocate("model", elsewhere / "m.onnx")
        project.relocate("test", elsewhere / "images")
        assert project.missing() == ()
        assert project.model is not None
        assert project.model.path == project.model.summary.source_path == str(elsewhere / "m.onnx")
        reference = project.data("test")
        assert reference is not None
        assert (reference.spec.path, reference.spec.samples) == (str(elsewhere / "images"), 3)


def test_that_a_reference_that_is_not_there_cannot_be_relocated(path: Path, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"x")
    with Project.create(path) as project:
        for kind in ("calibration", "model"):
            with pytest.raises(ProjectError, match=f"no {kind} to relocate"):
                project.relocate(kind, tmp_path / "x.npz")
        with pytest.raises(ValueError, match="not data"):
            project.set_data("model", DataSpec("x"))


def test_that_a_folders_digest_sees_names_and_sizes(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "1.png").write_bytes(b"abc")
    first = content_digest(folder)
    assert content_digest(folder) == first
    (folder / "2.png").write_bytes(b"")
    assert content_digest(folder) != first


# Saving elsewhere.


def test_that_save_as_goes_on_in_the_new_file(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.qstudio"
    with Project.create(path) as project:
        project.edit(project.state.with_recipe(RECIPE), "Set INT8")
        project.save_as(target)
        assert project.path == target
        put_note(project, "only", "in the copy")
        project.save_as(target)
        assert project.undo_label == "Set INT8"
        with Project.open(path) as original:
            assert original.state == project.state
            assert note(original, "only") is None
    with Project.open(target) as copy:
        assert note(copy, "only") == "in the copy"


def test_that_save_as_replaces_a_file_with_a_journal_cleanly(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "old.qstudio"
    left = Project.create(target)
    put_note(left, "who", "old")
    # A killed process leaves its journal behind: copy it aside and put it back.
    journal = target.with_name("old.qstudio-wal")
    content = journal.read_bytes()
    left.close()
    journal.write_bytes(content)
    with Project.create(path) as project:
        put_note(project, "who", "new")
        project.save_as(target)
    with Project.open(target) as project:
        assert note(project, "who") == "new"


def test_that_save_as_onto_an_open_project_changes_nothing(path: Path, tmp_path: Path) -> None:
    with Project.create(path) as project, Project.create(tmp_path / "b.qstudio") as other:
        put_note(other, "a", "1")
        with pytest.raises(ProjectError, match="open in another window"):
            project.save_as(other.path)
        assert project.path == path
        with pytest.raises(ProjectError, match="cannot write"):
            project.save_as(tmp_path / "no" / "x.qstudio")
        put_note(project, "still", "works")
        assert note(other, "a") == "1"


def test_that_an_unsaved_project_is_restored_at_the_next_start() -> None:
    with Project.temporary() as project:
        assert project.is_temporary
        assert project.path.parent == config_folder() / "sessions"
        project.edit(project.state.with_recipe(RECIPE), "Set INT8")
    with Project.temporary() as project:
        assert project.state.recipe == RECIPE
        with Project.temporary() as second:
            assert second.path != project.path
            assert second.state.recipe != RECIPE
            second.discard()
        with Project.temporary(restore=False) as third:
            assert third.undo_label == ""
    assert len(Project.sessions()) == 2


def test_that_a_damaged_session_does_not_stop_the_start() -> None:
    broken = config_folder() / "sessions" / "session-broken.qstudio"
    broken.parent.mkdir()
    broken.write_bytes(b"rubbish")
    with Project.temporary() as project:
        assert project.path != broken
    assert broken.read_bytes() == b"rubbish"


def test_that_saving_an_unsaved_project_ends_its_session(tmp_path: Path) -> None:
    with Project.temporary() as project:
        put_note(project, "a", "1")
        project.save_as(tmp_path / "mine.qstudio")
        assert not project.is_temporary
        assert Project.sessions() == ()
        with pytest.raises(ProjectError, match="only an unsaved"):
            project.discard()
        assert note(project, "a") == "1"


def test_that_the_journal_stays_small_in_a_long_session(path: Path) -> None:
    with Project.create(path) as project:
        for i in range(1000):
            put_note(project, f"{i % 10}", "x" * 20_000)
            # However slow the disk is, the merge gets its turn; the test is about what it leaves.
            for thread in threading.enumerate():
                if thread.name == "checkpoint":
                    thread.join()
        # 1,000 values of 20 kB are 20 MB of journal without merging.
        assert path.with_name(path.name + "-wal").stat().st_size < 15e6
    assert files_beside(path) == {"net.qstudio"}
    assert not any(thread.name == "checkpoint" for thread in threading.enumerate())
