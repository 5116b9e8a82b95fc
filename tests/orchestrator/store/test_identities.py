"""What finds a fact again in MLflow."""

from __future__ import annotations

from orchestrator.store.identities import RunIdentity, evaluation_run, search_run, trial_name, trial_run


def test_a_sequence_and_each_of_its_tasks_have_tags_of_their_own() -> None:
    assert RunIdentity("s").tags() == {"orchestrator.sequence": "s", "orchestrator.task_id": "-1"}
    assert RunIdentity("s", 0).tags() == {"orchestrator.sequence": "s", "orchestrator.task_id": "0"}
    assert RunIdentity("s", 2).model_tags() == {"orchestrator_model": "s/2"}


def test_a_search_that_is_defined_anew_has_other_trials_and_another_choice_another_evaluation() -> None:
    assert trial_name("ft+migu", 7) == "ft+migu-007"
    first = trial_run("quick", "ft-000", "aaaaaaaa11")
    assert first.key == "search:quick/ft-000-aaaaaaaa"
    assert first.name == "quick-ft-000"
    assert trial_run("quick", "ft-000", "bbbbbbbb11") != first
    assert evaluation_run("quick", "cccccccc22").key == "search:quick/evaluation-cccccccc"
    assert search_run("quick").key == "search:quick"
