"""The held-out search without Ray: what is refused, what is chosen, and that tuning never sees a test split."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from orchestrator.config.experiment import RunConfig
from orchestrator.config.search import Dimension
from orchestrator.errors import UserError
from orchestrator.planning.experiment import Experiment
from orchestrator.search import definition as search_module
from orchestrator.search.choice import evaluation_sequences, freeze, frozen_config, read_chosen
from orchestrator.search.definition import Search, prepare
from orchestrator.search.plots import draw
from orchestrator.search.report import notes, print_search
from orchestrator.search.results import ranking, save_tuning_results, search_results
from orchestrator.search.space import with_values
from orchestrator.search.trial_store import TrialStore
from orchestrator.search.trials import Trial, metrics_after
from orchestrator.store.events import Event, SearchChosen
from orchestrator.store.journal import Tail
from orchestrator.store.test_access_log import TestAccessLog
from orchestrator.training.sequence import run_sequence
from streams import SealedSplit
from tests.conftest import small_config

TUNING: dict[str, Any] = {"name": "embedded-tuning", "first": 3, "max_train": 24, "max_dev": 12}
EVALUATION: dict[str, Any] = {"name": "embedded", "first": 3, "max_train": 24, "max_test": 10}


def searched(out: Path, methods: Any = ("ft", "ft+migu"), evaluated: Any = None, **search: Any) -> RunConfig:
    """A small search: two trials a method unless said otherwise."""
    space = {"training.lr": [1e-3, 3e-3], "migu.ratio": [0.3, 0.6]}
    section = {"streams": [TUNING], "trials": 2, "seeds": [1], "space": space, **search}
    changes: dict[str, Any] = {"methods": list(methods), "search": section}
    return small_config(out, **changes, streams=evaluated or [EVALUATION])


def opened(config: RunConfig) -> tuple[Search, TrialStore]:
    search = prepare(config, gpu=False)
    return search, TrialStore(search.folder, search.settings, search.planner, search.method_searches)


def run_all(trial_store: TrialStore, count: int | None = None) -> list[Trial]:
    """Run trials in this process until there are no more, or `count` of them."""
    done = []
    while (count is None or len(done) < count) and (trial := trial_store.start_next()):
        for sequence in trial.sequences:
            run_sequence(sequence)
        trial_store.record_result(trial)
        done.append(trial)
    return done


def files(folder: Path, tasks: dict[str, list[tuple[str, str]]]) -> Path:
    """A folder of tasks with two labels; each has the same rows for train and, unless it is missing, test."""
    for name, rows in tasks.items():
        place = folder / "SC" / name
        place.mkdir(parents=True)
        (place / "labels.json").write_text('["good", "bad"]')
        (place / "train.json").write_text(json.dumps([{"sentence": s, "label": y} for s, y in rows]))
    return folder


def rows(word: str, count: int = 30) -> list[tuple[str, str]]:
    return [(f"{word} number {i} is what we saw", ("good", "bad")[i % 2]) for i in range(count)]


def on_folder(out: Path, folder: Path, tuning: list[str], evaluation: list[str], **search: Any) -> RunConfig:
    def stream(name: str, tasks: list[str]) -> dict[str, Any]:
        return {"name": name, "folder": str(folder), "tasks": tasks, "max_train": 16, "max_test": 5}

    return searched(out, ["ft"], [stream("there", evaluation)], **{"streams": [stream("here", tuning)], **search})


def with_test(folder: Path, name: str, data: list[tuple[str, str]]) -> None:
    file = folder / "SC" / name / "test.json"
    file.write_text(json.dumps([{"sentence": s, "label": y} for s, y in data]))


def test_the_choice_is_the_best_finished_trial_on_the_dev_split(tmp_path: Path) -> None:
    search, trial_store = opened(searched(tmp_path))
    trials = run_all(trial_store)
    assert [t.key for t in trials] == ["ft-000", "ft+migu-000", "ft-001", "ft+migu-001"], "methods take turns"
    for label in ("ft", "ft+migu"):
        scores = {}
        for trial in trial_store.trials_of(label):
            (view,) = trial.views()
            assert view.test_sizes() == [12] * 3, "scored on dev"
            scores[trial.number] = float(np.mean([view.scores[3, j].score for j in range(3)]))
            assert trial_store.results[trial.key].score == pytest.approx(scores[trial.number])
        best = trial_store.best(label)
        assert best
        assert scores[best.number] == max(scores.values())
    chosen = freeze(search, trial_store)
    assert chosen["methods"]["ft"]["values"] == trial_store.trials[f"ft-{chosen['methods']['ft']['trial']:03d}"].values
    frozen = frozen_config(search.config, chosen)
    assert [m.label for m in frozen.methods] == ["ft", "ft+migu"]
    assert frozen.training_for(frozen.methods[0]).lr == chosen["methods"]["ft"]["values"]["training.lr"]
    assert frozen.methods[1].plugins[0].settings["ratio"] == chosen["methods"]["ft+migu"]["values"]["migu.ratio"]


def test_methods_share_what_they_train_alike(tmp_path: Path) -> None:
    _, trial_store = opened(searched(tmp_path))
    run_all(trial_store)
    trained = {key: end.cost.trained for key, end in trial_store.results.items()}
    assert trained == {"ft-000": 3, "ft+migu-000": 2, "ft-001": 3, "ft+migu-001": 2}
    assert all(end.cost.tasks == 3 for end in trial_store.results.values())


def test_a_stopped_search_goes_on_and_more_trials_add_to_it(tmp_path: Path) -> None:
    space = {"training.lr": [1e-4, 1e-3, 3e-3], "migu.ratio": [0.3, 0.6]}
    whole, trial_store = opened(searched(tmp_path / "whole", trials=3, searcher="tpe", space=space))
    run_all(trial_store)
    config = searched(tmp_path / "parts", trials=2, searcher="tpe", space=space)
    _, first = opened(config)
    done = run_all(first, count=1)
    second = first.start_next()  # proposed, begun, and then the process dies
    assert second
    run_sequence(second.sequences[0], until=2)
    _, resumed = opened(config)
    assert set(resumed.results) == {done[0].key}
    assert run_all(resumed)[0].key == second.key
    parts, more = opened(searched(tmp_path / "parts", trials=3, searcher="tpe", space=space))
    run_all(more)
    assert len(more.trials) == 6
    assert {k: t.values for k, t in more.trials.items()} == {k: t.values for k, t in trial_store.trials.items()}
    assert {k: e.score for k, e in more.results.items()} == {k: e.score for k, e in trial_store.results.items()}
    assert freeze(parts, more)["methods"] == freeze(whole, trial_store)["methods"]


def test_what_was_done_when_the_process_died_is_noted_without_training(tmp_path: Path) -> None:
    config = searched(tmp_path, ["ft"], trials=1)
    _, trial_store = opened(config)
    trial = trial_store.start_next()
    assert trial
    run_sequence(trial.sequences[0])  # and the process dies before the end is noted
    _, resumed = opened(config)
    resumed.record_complete()
    assert resumed.results[trial.key].status == "finished"
    assert resumed.start_next() is None


def test_another_definition_is_another_search(tmp_path: Path) -> None:
    _, trial_store = opened(searched(tmp_path, ["ft"], trials=1))
    run_all(trial_store)
    _, other = opened(searched(tmp_path, ["ft"], trials=1, seeds=[2]))
    assert not other.trials
    _, same = opened(searched(tmp_path, ["ft"], trials=2, max_concurrent=1))
    assert len(same.trials) == 1


def test_a_trial_that_fails_is_noted_and_the_search_goes_on(tmp_path: Path) -> None:
    config = searched(tmp_path, ["ft"], space={"training.lr": [1e-3, 1e30]})
    config = config.model_copy(update={"training": config.training.model_copy(update={"clip": None})})
    search, trial_store = opened(config)
    while trial := trial_store.start_next():
        with contextlib.suppress(RuntimeError):
            run_sequence(trial.sequences[0])
        trial_store.record_result(trial)
    failed = next(k for k, t in trial_store.trials.items() if t.values["training.lr"] == 1e30)
    assert trial_store.results[failed].status == "failed"
    assert "in task" in trial_store.results[failed].reason
    assert freeze(search, trial_store)["methods"]["ft"]["values"] == {"training.lr": 1e-3}


def test_a_budget_of_tasks_ends_a_method_that_has_spent_it(tmp_path: Path) -> None:
    _, trial_store = opened(searched(tmp_path, trials=2, trial_tasks=4))
    run_all(trial_store)
    assert {label: trial_store.usage(label) for label in ("ft", "ft+migu")} == {"ft": 6, "ft+migu": 6}
    _, small = opened(searched(tmp_path / "small", trials=2, trial_tasks=3))
    run_all(small)
    assert {label: len(small.trials_of(label)) for label in ("ft", "ft+migu")} == {"ft": 1, "ft+migu": 1}


def test_first_task_selection_trains_one_task_and_leaves_the_rest_at_its_default(tmp_path: Path) -> None:
    search, trial_store = opened(searched(tmp_path, select="first-task"))
    run_all(trial_store)
    assert {c.label: list(c.space) for c in search.method_searches} == {
        "ft": ["training.lr"],
        "ft+migu": ["training.lr"],
    }
    assert all(t.num_tasks == 1 for t in trial_store.trials.values())
    entry = frozen_config(search.config, freeze(search, trial_store)).methods[1]
    assert entry.plugins[0].settings["ratio"] == 0.3


def test_the_measure_can_punish_forgetting(tmp_path: Path) -> None:
    _, trial_store = opened(searched(tmp_path, ["ft"], trials=1, forgetting_weight=0.5))
    (trial,) = run_all(trial_store)
    end = trial_store.results[trial.key]
    assert end.score == pytest.approx((end.metrics["aa"] or 0) - 0.5 * (end.metrics["forgetting"] or 0), abs=1e-5)


def test_bounds_are_measured_alike_in_both_phases(tmp_path: Path) -> None:
    """They forget nothing, and what trains nothing has nothing to choose."""
    methods = ["zero-shot", "nmc", "expert", "joint"]
    search, trial_store = opened(searched(tmp_path, methods, forgetting_weight=1.0, scheduler="asha"))
    run_all(trial_store)
    assert [len(trial_store.trials_of(m)) for m in methods] == [1, 1, 2, 2]
    assert trial_store.trials_of("nmc")[0].values == trial_store.trials_of("zero-shot")[0].values == {}
    for method in ("zero-shot", "expert", "joint"):
        for trial in trial_store.trials_of(method):
            end = trial_store.results[trial.key]
            assert end.metrics["forgetting"] is end.metrics["bwt"] is None
            assert end.score == pytest.approx(end.metrics["aa"], abs=1e-5)
    (trial, _) = trial_store.trials_of("expert")
    assert trial_store.results[trial.key].score == pytest.approx(
        np.mean([view.matrix()[1, 0] for view in trial.views()]), abs=1e-5
    )
    assert freeze(search, trial_store)["missing"] == []


def test_asha_stops_no_expert(tmp_path: Path) -> None:
    """Each has one task, and rungs begin at two."""
    from types import SimpleNamespace

    from orchestrator.search.ray_tune import PerMethodAsha

    _, trial_store = opened(searched(tmp_path, ["expert"], trials=1, scheduler="asha"))
    assert trial_store.start_next()
    scheduler, trial = PerMethodAsha(trial_store), SimpleNamespace(trial_id="one", config={"method": "expert"})
    scheduler.on_trial_add(None, trial)
    assert scheduler.on_trial_result(None, trial, {"tasks": 1, "score": 0.0}) == "CONTINUE"
    scheduler.on_trial_remove(None, trial)


def test_several_streams_and_seeds_are_one_trial(tmp_path: Path) -> None:
    _, trial_store = opened(searched(tmp_path, ["ft"], trials=1, seeds=[1, 2]))
    (trial,) = run_all(trial_store)
    finals = [np.mean(view.matrix()[-1]) for view in trial.views()]
    assert len(finals) == 2
    assert trial_store.results[trial.key].score == pytest.approx(np.mean(finals))


def test_tuning_runs_where_no_test_split_exists(tmp_path: Path) -> None:
    folder = files(tmp_path / "data", {"alpha": rows("apple"), "beta": rows("brick")})
    with_test(folder, "beta", rows("cloud", 10))  # alpha, which is tuned on, has none
    _, trial_store = opened(on_folder(tmp_path / "out", folder, ["alpha"], ["beta"]))
    run_all(trial_store)
    assert all(end.status == "finished" for end in trial_store.results.values())
    read = TestAccessLog(tmp_path / "out").entries()
    assert {entry["dataset"] for entry in read} == {"beta"}
    assert {entry["by"] for entry in read} == {"plan"}
    assert all("hashes alone" in entry["why"] for entry in read)


def test_a_peek_at_a_test_split_is_refused(tmp_path: Path) -> None:
    _, trial_store = opened(searched(tmp_path, ["ft"], trials=1))
    trial = trial_store.start_next()
    assert trial
    stream = trial.sequences[0].open_stream()
    with pytest.raises(SealedSplit, match="sealed while tuning"):
        stream.tasks[0].read("test")
    with pytest.raises(SealedSplit):
        _ = stream.tasks[0].test_hash
    peeking = trial.sequences[0].model_copy(update={"split": "test"})
    with pytest.raises(RuntimeError, match="has changed since the experiment was planned"):
        run_sequence(peeking)


def plant(tmp_path: Path, where: str) -> RunConfig:
    shared = ("This very sentence, lies on BOTH sides", "good")
    same = ("this very sentence lies on both sides", "bad")
    tasks = {"alpha": [shared, *rows("apple")], "beta": rows("brick")}
    if where == "train":
        tasks["beta"] = [*rows("brick"), same]
    folder = files(tmp_path / "data", tasks)
    with_test(folder, "beta", [*rows("cloud", 10), same] if where == "test" else rows("cloud", 10))
    config = on_folder(tmp_path / "out", folder, ["alpha"], ["beta"])
    assert config.search
    wide = {"max_train": 24, "max_test": None, "dev_fraction": 0.2}
    streams = tuple(s.model_copy(update=wide) for s in config.streams)
    tuning = tuple(s.model_copy(update=wide) for s in config.search.streams)
    return config.model_copy(
        update={"streams": streams, "search": config.search.model_copy(update={"streams": tuning})}
    )


@pytest.mark.parametrize("where", ["train", "test"])
def test_a_planted_overlap_stops_with_both_places(tmp_path: Path, where: str) -> None:
    with pytest.raises(UserError) as caught:
        prepare(plant(tmp_path, where), gpu=False)
    message = str(caught.value)
    assert "'alpha', " in message
    assert "row 1 " in message
    assert f"'beta', {where} row" in message or (where == "train" and "'beta', dev row" in message)
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_data_sets_on_both_sides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holdout"):
        prepare(searched(tmp_path, ["ft"], evaluated=[TUNING]), gpu=False)
    allowed = prepare(searched(tmp_path, ["ft"], evaluated=[TUNING], holdout="none"), gpu=False)
    assert "usual practice" in allowed.proof.statement


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"max_train": 30}, ["not the same scenario", "30 train examples (4 steps)", "24 (3 steps)"]),
        ({"first": 2}, ["not the same scenario", "has 2 tasks, 'embedded' has 3"]),
    ],
)
def test_unequal_scenarios_are_refused(tmp_path: Path, change: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        prepare(searched(tmp_path, ["ft"], **{"streams": [{**TUNING, **change}]}), gpu=False)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("search", "part"),
    [
        ({"seeds": [7]}, "7 is an evaluation seed too"),
        ({"grace": 1}, "greater than or equal to 2"),
        ({"select": "first-task", "scheduler": "asha"}, "asha needs several tasks"),
        ({"seeds": [1, 1]}, "given twice"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(tmp_path: Path, search: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError) as caught:  # pydantic's, with the message below
        searched(tmp_path, **search)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("search", "part"),
    [
        ({"space": {"migu.ration": [0.1]}}, "Did you mean 'migu.ratio'"),
        ({"searcher": "grid", "space": {"training.lr": {"low": 1e-4, "high": 1e-2}}}, "a grid needs listed values"),
        ({"streams": [{**TUNING, "dev_fraction": 0.0}]}, "has no dev split"),
        ({"metric": "aa_options"}, "does not apply to models that generate"),
        ({"scheduler": "asha", "grace": 3}, "3 is not below the 3 tasks"),
        ({"searcher": "grid", "trials": 1}, "the grid of ft has 2 points, but there are 1 trials"),
        ({"space": {"training.epochs": {"low": 1, "high": 4}}}, "search.space.training.epochs"),
        ({"space": {"training.budget": [3, 4]}}, "search.space: unknown parameter 'training.budget'"),
        (
            {"space": {"training.schedule": ["infinite"], "training.warmup": {"low": 0.1, "high": 0.2}}},
            "infinite.cooldown",
        ),
        ({"space": {"training.global_batch": [8, 12], "training.micro_batch": [8]}}, "not a multiple of micro_batch"),
    ],
)
def test_a_search_is_checked_before_the_first_trial(tmp_path: Path, search: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError) as caught:
        prepare(searched(tmp_path, **search), gpu=False)
    assert part in str(caught.value)


def test_schedules_and_budgets_are_checked_before_the_first_trial(tmp_path: Path) -> None:
    space = {"training.schedule": ["cosine", "infinite"]}
    assert prepare(searched(tmp_path, ["ft"], space=space), gpu=False).method_searches
    with pytest.raises(UserError, match="'infinite' cannot be combined with 'merge'"):
        prepare(searched(tmp_path, ["ft", "average"], space=space), gpu=False)
    config = searched(tmp_path, ["ft"], space={})
    budgeted = config.model_copy(
        update={"training": type(config.training).model_validate({"global_batch": 8, "budget": {"tokens": 900}})}
    )
    assert prepare(budgeted, gpu=False).scenario == ((24, 900),) * 3
    assert config.search
    space_of_epochs = {"training.epochs": Dimension(values=(1, 2))}
    search = config.search.model_copy(update={"space": space_of_epochs})
    with pytest.raises(UserError, match=r"with training\.budget, epochs are not used"):
        prepare(budgeted.model_copy(update={"search": search}), gpu=False)


def finished(tmp_path: Path) -> tuple[Search, TrialStore, dict[str, Any]]:
    """Both phases, in this process."""
    search, trial_store = opened(searched(tmp_path))
    run_all(trial_store)
    chosen = freeze(search, trial_store)
    save_tuning_results(search.folder, search.description(), trial_store, chosen)
    draw(trial_store, search.folder)
    frozen = frozen_config(search.config, chosen)
    sequences = evaluation_sequences(search, frozen, chosen)
    for sequence in sequences:
        run_sequence(sequence)
    experiment = Experiment(frozen, tuple(sequences))
    experiment.save()
    return search, trial_store, search_results(experiment)


def test_both_phases_in_one_report(tmp_path: Path) -> None:
    search, _, result = finished(tmp_path)
    for sequence in result["sequences"]:
        method = result["search"]["methods"][sequence["method"]]
        assert method["evaluation_score"] == pytest.approx(sequence["aa"])
        assert method["gap"] == pytest.approx(method["tuning_score"] - sequence["aa"])
        assert method["trials"] == {"finished": 2}
        assert sequence["test_sizes"] == [10] * 3
    readers = {entry["by"] for entry in result["search"]["test_access_log"]}
    assert readers == {"plan", *(s["id"] for s in result["sequences"])}, "no trial read a test split"
    console = Console(width=200)
    with console.capture() as captured:
        print_search(result, console)
    said = captured.get()
    for part in (
        "ft+migu",
        "evaluation",
        "tuning",
        "gap",
        "no text is on both sides",
        "Kendall tau",
        "the test-access log",
    ):
        assert part in said
    assert sorted(p.name for p in search.folder.glob("*.png")) == [
        "contour-ft+migu-training.lr-migu.ratio.png",
        "parallel-ft+migu.png",
        "parallel-ft.png",
    ]
    assert "none in common" in " ".join(notes(result["search"]))


def test_the_evaluation_takes_no_values_but_the_chosen(tmp_path: Path) -> None:
    search, trial_store, _ = finished(tmp_path)
    written = read_chosen(search)
    assert freeze(search, trial_store) == written, "the same choice again is no other choice"
    file = search.folder / "chosen.json"
    file.write_text(file.read_text().replace('"training.lr": 0.00', '"training.lr": 0.01'))
    with pytest.raises(UserError, match="not the values that the search chose"):
        freeze(search, trial_store)
    with pytest.raises(UserError, match="takes no others"):
        read_chosen(search)
    written["methods"]["ft"]["values"] = {"training.lr": 0.5}
    written["sha256"] = search_module.content_hash({k: v for k, v in written.items() if k != "sha256"})
    file.write_text(json.dumps(written))
    with pytest.raises(UserError, match="takes no others"):  # sound in itself, but not of this search
        read_chosen(search)
    file.unlink()
    freeze(search, trial_store)
    assert read_chosen(search)["methods"]["ft"]["values"] != {"training.lr": 0.5}


def test_a_process_that_dies_while_it_freezes_locks_nothing(tmp_path: Path) -> None:
    config = searched(tmp_path, ["ft"], trials=1)
    search, trial_store = opened(config)
    run_all(trial_store)
    first = freeze(search, trial_store)
    more, trial_store = opened(searched(tmp_path, ["ft"], trials=2))
    run_all(trial_store)
    second = freeze(more, trial_store)  # noted and written; the pictures and what follows never came
    assert freeze(more, trial_store) == second
    assert {e.sha256 for e in events(search) if isinstance(e, SearchChosen)} >= {first["sha256"], second["sha256"]}


def events(search: Search) -> list[Event]:
    return list(Tail(search.folder).new_events())


def test_fewer_trials_than_before_count_for_every_method(tmp_path: Path) -> None:
    _, trial_store = opened(searched(tmp_path, trials=2))
    run_all(trial_store, count=3)  # ft has two, ft+migu one
    search, less = opened(searched(tmp_path, trials=1))
    assert run_all(less) == []
    assert {label: len(less.trials_of(label)) for label in ("ft", "ft+migu")} == {"ft": 1, "ft+migu": 1}
    assert freeze(search, less)["methods"]["ft"]["trial"] == 0


def test_machinery_that_failed_around_a_whole_trial_does_not_fail_it(tmp_path: Path) -> None:
    _, trial_store = opened(searched(tmp_path, ["ft"], trials=1))
    trial = trial_store.start_next()
    assert trial
    run_sequence(trial.sequences[0])
    trial_store.record_result(trial, "its process died")
    assert trial_store.results[trial.key].status == "finished"


def test_failed_trials_run_again_on_request(tmp_path: Path) -> None:
    config = searched(tmp_path, ["ft"], trials=1)
    _, trial_store = opened(config)
    trial = trial_store.start_next()
    assert trial
    trial_store.record_result(trial, "the machine had no memory")
    assert trial_store.results[trial.key].reason == "the machine had no memory"
    _, later = opened(config)
    assert later.is_done()
    later.reopen_failed()
    run_all(later)
    _, last = opened(config)
    assert last.results[trial.key].status == "finished"


def test_asha_remembers_what_earlier_trials_reached(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from orchestrator.search.ray_tune import PerMethodAsha, rungs

    config = searched(tmp_path, ["ft"], trials=2, scheduler="asha", reduction=2)
    _, trial_store = opened(config)
    trials = run_all(trial_store)
    reached = [metrics_after(t.views(), 2)["aa"] or 0.0 for t in trials]
    scheduler = PerMethodAsha(trial_store)
    new = SimpleNamespace(trial_id="new", config={"method": "ft"})
    scheduler.on_trial_add(None, new)
    cutoff = float(np.percentile(reached, 50))
    assert scheduler.on_trial_result(None, new, {"tasks": 2, "score": cutoff - 1}) == "STOP"
    other = SimpleNamespace(trial_id="other", config={"method": "ft"})
    scheduler.on_trial_add(None, other)
    assert scheduler.on_trial_result(None, other, {"tasks": 2, "score": cutoff + 50}) == "CONTINUE"
    assert config.search
    assert rungs(config.search.model_copy(update={"reduction": 1.2}), 10) == [2, 3, 4, 5, 6, 8, 9]


def test_groups_of_rates_that_are_not_searched_stay(tmp_path: Path) -> None:
    config = small_config(tmp_path, training={"lrs": {"shared*": 0.5, "head": 0.1}})
    made = with_values(config.methods[0], {"training.lrs.head": 0.2})
    assert config.training_for(made).lrs == {"shared*": 0.5, "head": 0.2}


def test_kendalls_tau_by_hand() -> None:
    def method(tuning: float, evaluation: float) -> dict[str, float]:
        return {"tuning_score": tuning, "evaluation_score": evaluation}

    found = ranking({"a": method(3, 1), "b": method(2, 3), "c": method(1, 2)})
    # of the pairs ab, ac, bc one (bc) keeps its order and two do not: (1 - 2) / 3
    assert found["kendall_tau"] == pytest.approx(-1 / 3, abs=1e-4)
    assert found["tuning"] == ["a", "b", "c"]
    assert found["evaluation"] == ["b", "c", "a"]


def test_learning_rates_of_parameter_groups(sequence_of: Callable[..., Any], learner_of: Callable[..., Any]) -> None:
    from orchestrator.training.optimizer import make_optimizer

    learner = learner_of(training={"lrs": {"*.SelfAttention.*": 0.5, "shared*": 0.25}})
    training = learner.sequence.training
    optimizer = make_optimizer(learner.family.module, [], training)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in learner.family.module.named_parameters():
        expected = 0.5 if ".SelfAttention." in name else 0.25 if name.startswith("shared") else training.lr
        assert rates[id(parameter)] == expected, name
    assert sequence_of(training={"lrs": {"shared*": 0.1}}).keys[1] != sequence_of().keys[1]
    with pytest.raises(ValueError, match="'nowhere' matches no parameter"):
        make_optimizer(learner.family.module, [], training.model_copy(update={"lrs": {"nowhere": 1.0}}))
