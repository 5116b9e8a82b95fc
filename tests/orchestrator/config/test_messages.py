"""The one line that answers what a user may not write."""

from __future__ import annotations

import pytest

from tests.orchestrator.config.refusal import refused


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("methods=[ft+mgu]", ["methods.0", "unknown method 'ft+mgu'", "Did you mean 'ft+migu'?"]),
        ("methods=[{tuning: full, plugins: [mihu]}]", ["methods.0.plugins.0", "'mihu'", "Did you mean 'migu'?"]),
        ("methods=[{tuning: migu}]", ["methods.0.tuning", "'migu' is a plug-in", "tuning methods: full, lora"]),
        ("methods=[{tuning: full, plugins: [lora]}]", ["methods.0.plugins", "'lora' is a tuning method"]),
        (
            "methods=[{tuning: full, plugins: [{name: migu, ratio: 0}]}]",
            ["plugins.0", "ratio", "greater than 0", "found 0"],
        ),
        ("methods=[{tuning: full, plugins: [{name: migu, ratio: 1.5}]}]", ["ratio", "less than or equal to 1", "1.5"]),
        (
            "methods=[{tuning: full, plugins: [{name: migu, ration: 0.5}]}]",
            ["unknown key 'ration'", "Did you mean 'ratio'?"],
        ),
        ("methods=[]", ["methods: expected a list of at least one, found []"]),
        ("methods=[{tuning: l2p, plugins: [migu]}]", ["'migu' cannot be combined with 'l2p'", "no linear layer"]),
        ("methods=[{tuning: olora, plugins: [ewc]}]", ["'ewc' cannot be combined with 'olora'", "no old ones to hold"]),
        ("methods=[{tuning: osf, plugins: [l2]}]", ["'l2' cannot be combined with 'osf'", "merged into the weights"]),
        (
            "methods=[{tuning: progprompt, plugins: [projection]}]",
            ["'projection' cannot be combined with 'progprompt'"],
        ),
        (
            "methods=[{tuning: full, plugins: [{name: migu, ratio: 0.5}, l2, methods.masking.migu.Migu]}]",
            ["'migu' is listed twice"],
        ),
        (
            "methods=[{tuning: full, plugins: [migu, random_mask]}]",
            ["'random_mask' does not go with 'migu'", "neither's"],
        ),
        ("streams=[embeded]", ["streams.0", "unknown stream 'embeded'", "Did you mean 'embedded'?"]),
        ("training.learning_rate=1", ["training", "unknown key 'learning_rate'"]),
        ("trainng.lr=1", ["unknown key 'trainng'", "Did you mean 'training'?"]),
        *(
            (f"methods=[{{preset: {name}, training: {{schedule: infinite}}}}]", ["training.schedule", repr(part), why])
            for name, part, why in (
                ("opcm", "merge", "merges the weights"),
                ("osf", "osf", "merged into the weights"),
                ("inclora+migu", "inclora", "weights of its own"),
                ("progprompt", "progprompt", "weights of its own"),
                ("ft+graftllm", "graftllm", "goes on from the form in which the weights are stored"),
            )
        ),
        (
            "methods=[{preset: ft, training: {budget: {steps: 5}}}]",
            ["methods.0.training: budget: a budget is the same for all methods"],
        ),
        ("methods=[{preset: ft, training: {lr: -1}}]", ["methods.0.training", "lr", "greater than 0"]),
        ("scaling.workers=3", ["training.global_batch: 32 does not divide by scaling.workers = 3"]),
        ("training.micro_batch=5", ["training.micro_batch", "32 is not a multiple of micro_batch x workers = 5 x 1"]),
        ("name=a/b", ["name", "pattern"]),
        ("training.lr", ["expected KEY=VALUE"]),
        ("training.lr.deep=1", ["'deep'", "below a value"]),
        ("methods.7=ft", ["no entry 7"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(override: str, parts: list[str]) -> None:
    message = refused(override)
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        # one mistake, which makes the list around it too short for pydantic
        (["streams=[{name: mine, tasks: []}]"], "streams.0.tasks: expected a list of at least one, found []"),
        # two mistakes, of which the first is an empty list
        (["seeds=[]", "training.lr=-1"], "seeds: expected a list of at least one, found [] (and 1 more)"),
    ],
)
def test_an_empty_list_is_told_where_it_is_the_mistake(overrides: list[str], line: str) -> None:
    assert refused(*overrides).endswith(f": {line}")


def test_a_long_value_is_shown_by_its_ends() -> None:
    line = refused(f"training.lr={'zebra' * 2_000}")
    assert len(line) < 250
    assert "zebrazebra" in line
