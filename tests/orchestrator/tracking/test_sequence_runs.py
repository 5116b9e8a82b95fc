"""The copy of a sequence in a real MLflow store: complete, and the same however often it is made."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.entities import Run

from orchestrator.planning.experiment import Experiment
from orchestrator.planning.planner import plan
from orchestrator.planning.sequence_plan import SequencePlan
from orchestrator.report.references import record_references
from orchestrator.report.results import results
from orchestrator.store.events import (
    CheckpointSaved,
    Measured,
    ScoreComputed,
    SequenceFailed,
    SequenceFinished,
    SequenceStarted,
    Step,
    TaskStarted,
)
from orchestrator.store.journal import Journal, journal_folder
from orchestrator.store.records.event import Event
from orchestrator.tracking.connection import Connection
from orchestrator.tracking.notes import Notes
from orchestrator.tracking.runs import Runs
from orchestrator.tracking.sequence_runs import SequenceRuns
from orchestrator.training.sequence import run_sequence
from tests.conftest import small_config
from tests.orchestrator.store.examples import checkpoint, point, probe, score, started, step
from tests.orchestrator.tracking.mlflow_runs import copy_to_mlflow, parent_of, points, runs, snapshot
from tests.steps import losses_of

TASKS = ("sport", "law", "news")


def start() -> SequenceStarted:
    """The start of a sequence that is written by hand."""
    sequence = {"method": {"name": "mine"}, "stream": {"name": "papers"}, "seed": 3, "keys": ["a", "b"]}
    return started(*TASKS).model_copy(update={"id": "s", "sequence": sequence, "time": 100})


def at(time: int, event: Event) -> Event:
    return event.model_copy(update={"time": time})


def all_events() -> list[Event]:
    """Two tasks of three and two steps, and the scores of the states that there are by then, later states first."""
    events: list[Event] = [start()]
    for task_id, steps in ((0, 3), (1, 2)):
        events.append(TaskStarted(task_id=task_id, task=TASKS[task_id], steps=steps, reused=False, time=200 + task_id))
        for number in range(1, steps + 1):
            events.append(at(300 + number, step(task_id, number, loss=10.0 * task_id + number)))
        saved = {"key": f"k{task_id}", "usage": {"steps": steps}, "diagnostics": {"share": [0.2, 0.4], "norm": 3.0}}
        events.append(at(400, checkpoint(task_id).model_copy(update=saved)))
    for tasks_seen in (2, 1, 0):
        for task_id in range(3):
            events.append(at(500 + tasks_seen, score(tasks_seen, task_id, 30.0 * tasks_seen + task_id)))
    return events


@pytest.fixture
def copied(store: str, tmp_path: Path) -> Callable[..., tuple[Run, dict[str, Run]]]:
    """Copies a journal of those events; gives the parent run and the tasks' runs by name."""

    def copy(events: Sequence[Event]) -> tuple[Run, dict[str, Run]]:
        for event in events:
            Journal(journal_folder(tmp_path, "s")).append(event)
        # by two processes without a note, of which the second finds what the first one made
        for _ in range(2):
            connection = Connection(store, str(tmp_path), str(tmp_path))
            shutil.rmtree(tmp_path / "tracking", ignore_errors=True)
            SequenceRuns(Runs(connection), str(tmp_path), "s", Notes(connection)).pull()
        found = connection.client.search_runs([connection.experiment_id])
        parent = parent_of(found)
        children = {run.info.run_name: run for run in found if run is not parent}
        assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} <= {parent.info.run_id}
        return parent, children

    return copy


def test_steps_of_a_task_go_on_in_the_parent(store: str, copied: Callable[..., tuple[Run, dict[str, Run]]]) -> None:
    parent, children = copied(all_events())
    assert parent.info.run_name == "mine · papers · seed 3"
    assert (parent.info.status, parent.info.start_time) == ("RUNNING", 100)
    assert sorted(children) == ["1 sport", "2 law"], "the third has not begun"
    second = children["2 law"]
    assert (second.info.status, second.info.start_time, second.info.end_time) == ("FINISHED", 201, 400)
    assert points(store, second, "loss") == [(1, 11), (2, 12)]
    assert points(store, parent, "loss") == [(1, 1), (2, 2), (3, 3), (4, 11), (5, 12)]
    assert points(store, parent, "train_steps") == [(1, 3), (2, 2)]
    assert "keys" not in parent.data.params
    assert parent.data.params["stream.name"] == "papers"


def test_of_many_steps_the_parent_has_some_and_the_last(
    store: str, copied: Callable[..., tuple[Run, dict[str, Run]]]
) -> None:
    """Of 45 steps every second one: 45 // 20 = 2. The next task's curve begins after all 45."""
    events: list[Event] = [start()]
    for task_id, steps in ((0, 45), (1, 1)):
        events.append(TaskStarted(task_id=task_id, task=TASKS[task_id], steps=steps, reused=False, time=200))
        for number in range(1, steps + 1):
            events.append(at(300 + number, step(task_id, number, loss=float(number))))
    parent, children = copied(events)
    assert points(store, children["1 sport"], "loss") == [(number, number) for number in range(1, 46)]
    some = [(number, number) for number in range(2, 46, 2)]
    assert points(store, parent, "loss") == [*some, (45, 45), (46, 1)]


def test_more_metrics_than_a_call_takes_are_all_there(
    store: str, copied: Callable[..., tuple[Run, dict[str, Run]]]
) -> None:
    events: list[Event] = [start(), TaskStarted(task_id=0, task="sport", steps=251, reused=False, time=200)]
    for number in range(1, 252):
        events.append(at(300 + number, step(0, number, loss=float(number))))
    _, children = copied(events)
    for key in ("loss", "lr", "grad_norm", "tokens_per_s"):
        assert [number for number, _ in points(store, children["1 sport"], key)] == list(range(1, 252))


def test_of_a_sequence_that_is_new_no_run_is_looked_for(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for all of its runs; one that was copied before is asked for each: its own and two of tasks."""
    find = Runs.find
    asked: list[dict[str, str]] = []

    def counted(runs: Runs, tags: Mapping[str, str]) -> str | None:
        asked.append(dict(tags))
        return find(runs, tags)

    monkeypatch.setattr(Runs, "find", counted)
    Journal(journal_folder(tmp_path, "s")).append_all(all_events())
    counts = []
    for _ in range(2):
        shutil.rmtree(tmp_path / "tracking", ignore_errors=True)
        connection = Connection(store, str(tmp_path), str(tmp_path))
        SequenceRuns(Runs(connection), str(tmp_path), "s", Notes(connection)).pull()
        counts.append(len(asked))
    assert counts == [1, 1 + 1 + 3]
    assert len(connection.client.search_runs([connection.experiment_id])) == 3


def test_a_list_is_drawn_over_layers_and_averaged_over_tasks(
    store: str, copied: Callable[..., tuple[Run, dict[str, Run]]]
) -> None:
    parent, children = copied(all_events())
    assert points(store, children["2 law"], "share") == [(0, 0.2), (1, 0.4)]
    assert points(store, parent, "share") == [(1, pytest.approx(0.3)), (2, pytest.approx(0.3))]
    assert points(store, parent, "norm") == [(1, 3), (2, 3)]


def test_averages_wait_for_the_states_before_and_are_no_nan(
    store: str, copied: Callable[..., tuple[Run, dict[str, Run]]]
) -> None:
    parent, _ = copied(all_events()[:-1])
    assert "aa" not in parent.data.metrics, "the initial model lacks a score"
    assert points(store, parent, "accuracy/2") == [(1, 32), (2, 62)]


def test_a_score_that_comes_late_completes_the_averages_of_later_states(
    store: str, copied: Callable[..., tuple[Run, dict[str, Run]]]
) -> None:
    """aa after one task: 30; after two: the mean of 60 and 61. Backward transfer needs two: 60 less 30."""
    parent, _ = copied(all_events())
    assert points(store, parent, "aa") == [(1, 30), (2, 60.5)]
    assert points(store, parent, "bwt") == [(2, 30)], "and no NaN after the first"


def test_a_benchmark_is_a_curve_over_states(store: str, copied: Callable[..., tuple[Run, dict[str, Run]]]) -> None:
    parent, children = copied([*all_events(), at(600, probe(0, "films", 60.0)), at(601, probe(1, "films", 20.0))])
    assert points(store, parent, "probe/films/acc") == [(0, 60.0), (1, 20.0)]
    assert points(store, children["1 sport"], "probe/films/acc") == [(1, 20.0)]


def test_rows_of_seen_tasks_have_averages_without_the_scores_before_a_tasks_turn(
    store: str, copied: Callable[..., tuple[Run, dict[str, Run]]]
) -> None:
    """aa after one task: 30; after two: the mean of 60 and 61."""
    begun = start()
    assert begun.sequence
    asked = begun.model_copy(update={"sequence": {**begun.sequence, "evaluation": {"rows": "seen"}}})
    events: list[Event] = [asked]
    for event in all_events()[1:]:
        if not isinstance(event, ScoreComputed) or event.task_id < event.tasks_seen:
            events.append(event)
    parent, _ = copied(events)
    assert points(store, parent, "aa") == [(1, 30), (2, 60.5)]
    assert points(store, parent, "bwt") == [(2, 30)]
    assert "fwt" not in parent.data.metrics
    assert "accuracy/2" not in parent.data.metrics
    assert parent.data.params["evaluation.rows"] == "seen"


def test_the_order_of_the_lines_does_not_matter_where_the_first_was_damaged(
    store: str, copied: Callable[..., tuple[Run, dict[str, Run]]]
) -> None:
    first, *others = all_events()
    parent, _ = copied([*others, first])
    assert points(store, parent, "loss") == [(1, 1), (2, 2), (3, 3), (4, 11), (5, 12)]
    assert points(store, parent, "aa") == [(1, 30), (2, 60.5)]


def test_a_task_whose_last_line_was_damaged_ends_with_the_sequence(
    copied: Callable[..., tuple[Run, dict[str, Run]]],
) -> None:
    """Without it nothing says that the task ended, and its run would go on for ever."""
    events = [event for event in all_events() if not isinstance(event, CheckpointSaved) or event.task_id != 0]
    parent, children = copied([*events, SequenceFinished(time=700)])
    ends = {run.info.run_name: (run.info.status, run.info.end_time) for run in (parent, *children.values())}
    assert ends == {
        "mine · papers · seed 3": ("FINISHED", 700),
        "1 sport": ("FINISHED", 700),
        "2 law": ("FINISHED", 400),
    }


def test_a_failure_ends_what_was_being_trained_and_nothing_else(
    copied: Callable[..., tuple[Run, dict[str, Run]]],
) -> None:
    begun = TaskStarted(task_id=2, task="news", steps=2, reused=False, time=600)
    parent, children = copied([*all_events(), begun, SequenceFailed(reason="the loss is nan", time=700)])
    assert (parent.info.status, parent.info.end_time) == ("FAILED", 700)
    assert parent.data.tags["orchestrator.failure"] == "the loss is nan"
    assert [children[name].info.status for name in ("1 sport", "2 law", "3 news")] == ["FINISHED", "FINISHED", "FAILED"]


@pytest.mark.slow
def test_everything_is_there_and_a_second_copy_changes_nothing(
    store: str, sequence_of: Callable[..., SequencePlan]
) -> None:
    sequence = sequence_of(methods=["ft+migu"])
    view = run_sequence(sequence)
    copy_to_mlflow([sequence], store)
    client = mlflow.MlflowClient(store)
    found = runs(store, sequence.id)
    parent = parent_of(found)
    children = [r for r in found if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(r.info.run_name for r in children) == [f"{i + 1} {t}" for i, t in enumerate(sequence.tasks)]
    assert {r.info.status for r in found} == {"FINISHED"}
    assert parent.data.params["method.plugins.0.settings.ratio"] == "0.3"
    assert parent.data.params["versions.torch"]
    assert {i.dataset.name for i in parent.inputs.dataset_inputs} == set(sequence.tasks)

    losses = client.get_metric_history(parent.info.run_id, "loss")
    assert [m.step for m in losses] == list(range(1, 16)), "three steps for each of five tasks, each once"
    assert losses[4].value == losses_of(sequence.out, sequence.id, 1)[1]
    for unit in ("steps", "tokens", "flops"):
        usage = client.get_metric_history(parent.info.run_id, f"train_{unit}")
        assert sum(m.value for m in usage) == view.usage(unit)
    scores = client.get_metric_history(parent.info.run_id, f"accuracy/{sequence.tasks[2]}")
    assert [(m.step, m.value) for m in scores] == [(row, view.scores[row, 2].score) for row in range(6)]
    averages = client.get_metric_history(parent.info.run_id, "aa")
    full = view.matrix()
    assert [m.value for m in averages] == pytest.approx([full[t, :t].mean() for t in range(1, 6)])
    for name in ("bwt", "forgetting"):
        assert [m.step for m in client.get_metric_history(parent.info.run_id, name)] == [2, 3, 4, 5]
    assert [f.path for f in client.list_artifacts(parent.info.run_id)] == [
        "config.yaml",
        "data.json",
        "diagnostics",
        "environment.json",
    ]
    plots = [f.path for f in client.list_artifacts(parent.info.run_id, "diagnostics") if f.path.endswith("png")]
    assert plots == [f"diagnostics/migu-overlap-after-{t}.png" for t in range(2, 6)]

    models = []
    for model in client.search_logged_models([parent.info.experiment_id], max_results=200):
        if model.tags["orchestrator_model"].startswith(f"{sequence.id}/"):
            models.append(model)
    assert {m.params["key"] for m in models} == set(sequence.keys[1:])
    last = next(m for m in models if m.params["task_id"] == "4")
    assert Path(last.tags["checkpoint_uri"].removeprefix("file://")).is_dir()
    assert {m.key: m.value for m in last.metrics}["aa"] == pytest.approx(full[5].mean())

    before = snapshot(store)
    copy_to_mlflow([sequence], store)
    assert snapshot(store) == before


@pytest.mark.slow
def test_a_resumed_sequence_goes_on_in_the_same_run(store: str, sequence_of: Callable[..., SequencePlan]) -> None:
    sequence = sequence_of(methods=[{"tuning": "lora", "name": "resumed"}])

    def stop(event: Event) -> None:
        if isinstance(event, Step) and event.task_id == 2 and event.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sequence(sequence, stop)
    copy_to_mlflow([sequence], store)
    run_sequence(sequence)
    copy_to_mlflow([sequence], store)
    mine = runs(store, sequence.id)
    parent = parent_of(mine)
    assert len(mine) == 6
    losses = mlflow.MlflowClient(store).get_metric_history(parent.info.run_id, "loss")
    assert [m.step for m in losses] == list(range(1, 16))
    assert parent.info.status == "FINISHED"


def test_what_a_method_says_of_itself_is_in_metrics_and_plots(
    store: str, sequence_of: Callable[..., SequencePlan]
) -> None:
    migu = {"name": "migu", "ratio": 0.5, "diagnostics": True}
    sequence = sequence_of(methods=[{"name": "watched", "tuning": "full", "plugins": [migu]}], stream={"first": 2})
    view = run_sequence(sequence)
    told = view.by_task[1].checkpoint.diagnostics  # type: ignore[index]
    copy_to_mlflow([sequence], store)
    client = mlflow.MlflowClient(store)
    mine = runs(store, sequence.id)
    parent = parent_of(mine)
    shares = told["migu/kept_share"]
    assert parent.data.metrics["migu/kept_share"] == pytest.approx(sum(shares) / len(shares))
    (second,) = [r for r in mine if r.info.run_name == f"2 {sequence.tasks[1]}"]
    layers = client.get_metric_history(second.info.run_id, "migu/kept_share")
    assert [m.value for m in sorted(layers, key=lambda m: m.step)] == pytest.approx(shares)
    assert second.data.metrics["migu/update_norm"] == pytest.approx(told["migu/update_norm"])
    files = {f.path for f in client.list_artifacts(parent.info.run_id, "diagnostics")}
    assert "diagnostics/migu-overlap-after-2.png" in files
    overlap = np.array(told["migu/overlap"])
    assert overlap.shape == (2, 2)
    assert np.diag(overlap) == pytest.approx([1, 1])


@pytest.mark.slow
def test_intransigence_comes_when_the_reference_run_is_known(store: str, tmp_path: Path) -> None:
    """In a copy that reads everything at once, in one that was there before, and once in both."""
    sequences = plan(small_config(tmp_path, methods=["ft", "joint"], stream={"first": 2}, seeds=[11]))
    for sequence in sequences:
        run_sequence(sequence)
    early = f"sqlite:///{tmp_path}/early.db"
    copy_to_mlflow(sequences, early)
    result = results(Experiment(small_config(tmp_path), tuple(sequences)))
    record_references(str(tmp_path), result["sequences"])
    expected = result["sequences"][0]["intransigence"]
    for uri in (early, store, store):
        copy_to_mlflow(sequences, uri)
        client = mlflow.MlflowClient(uri)
        (run,) = [r for r in runs(uri) if r.data.tags.get("orchestrator.reference_run") == "joint"]
        history = client.get_metric_history(run.info.run_id, "intransigence")
        assert [(metric.step, metric.value) for metric in history] == [(2, pytest.approx(expected))]


def test_scores_of_several_scorers_go_by_these(store: str, copied: Callable[..., tuple[Run, dict[str, Run]]]) -> None:
    """The first task's scores are 30 and 60: perplexities, of which the second is worse by 30."""
    begun = start()
    mixed = begun.model_copy(update={"sequence": {**begun.sequence, "scorers": ["perplexity", "rouge-l", "rouge-l"]}})
    parent, _ = copied([mixed, *all_events()[1:]])
    metrics = parent.data.metrics
    assert (metrics["aa/perplexity"], metrics["aa/rouge-l"], metrics["bwt/perplexity"]) == (60, 61, -30)
    assert "aa" not in metrics and not any(key.startswith("accuracy/") for key in metrics)
    assert points(store, parent, "perplexity/0") == [(0, 0), (1, 30), (2, 60)]
    assert metrics["rouge-l/1"] == 61


def test_scores_amid_training_are_metrics_and_a_picture(
    store: str, copied: Callable[..., tuple[Run, dict[str, Run]]]
) -> None:
    """The first task falls from 90 to 20 amid the second, and is back at 70; the second ends at 80."""
    begun = start()
    asked = begun.model_copy(
        update={"sequence": {**begun.sequence, "evaluation": {"during": {"every": 1, "window": 2}}}}
    )
    scores = {
        (0, 0, 0): 10.0,
        (0, 3, 0): 90.0,
        (1, 0, 0): 90.0,
        (1, 0, 1): 5.0,
        (1, 1, 0): 20.0,
        (1, 2, 0): 70.0,
        (1, 2, 1): 80.0,
    }
    events: list[Event] = [asked]
    for task_id, steps in ((0, 3), (1, 2)):
        events.append(TaskStarted(task_id=task_id, task=TASKS[task_id], steps=steps, reused=False, time=200 + task_id))
        for (trained, number, scored), value in scores.items():
            if trained == task_id:
                events.append(at(300 + number, point(trained, number, scored, value)))
        events.append(at(400 + task_id, checkpoint(task_id)))
    events.append(Measured(expert="expert", values={"saturation": 0.5}, time=500))
    parent, children = copied(events)
    # (a point before the first step stands where the task before has its last)
    assert points(store, parent, "during/0") == [(0, 10), (3, 90), (3, 90), (4, 20), (5, 70)]
    assert points(store, parent, "during/1") == [(3, 5), (5, 80)]
    assert points(store, children["2 law"], "during/0") == [(0, 90), (1, 20), (2, 70)]
    assert points(store, parent, "min_acc") == [(2, 20)]
    assert points(store, parent, "wc_acc") == [(1, 90), (2, 50)]
    # in a window of two points: the first task falls by 70 and rises by 80, the second rises by 75
    assert points(store, parent, "wf") == [(1, 0), (2, 35)]
    assert points(store, parent, "wp") == [(1, 80), (2, 77.5)]
    assert points(store, parent, "saturation") == [(3, 0.5)]
    client = mlflow.MlflowClient(store)
    assert [f.path for f in client.list_artifacts(parent.info.run_id, "curves")] == ["curves/scores-amid-training.png"]


def test_scores_that_are_asked_for_later_double_no_summary(
    store: str, copied: Callable[..., tuple[Run, dict[str, Run]]]
) -> None:
    """Those before a task's turn, which the run did not ask for and `evaluate` adds, each copied by itself."""
    begun = start()
    events: list[Event] = [begun.model_copy(update={"sequence": {**begun.sequence, "evaluation": {"rows": "seen"}}})]
    late: list[Event] = []
    for event in all_events()[1:]:
        if isinstance(event, ScoreComputed) and event.task_id >= event.tasks_seen:
            late.append(at(900 + len(late), event))
        else:
            events.append(event)
    copied(events)
    for event in reversed(late):
        parent, _ = copied([event])
    client = mlflow.MlflowClient(store)
    for key in parent.data.metrics:
        history = [(metric.step, metric.value) for metric in client.get_metric_history(parent.info.run_id, key)]
        assert len(history) == len(set(history)), key
    assert points(store, parent, "aa") == [(1, 30), (2, 60.5)]
    assert [number for number, _ in points(store, parent, "fwt")] == [2]
