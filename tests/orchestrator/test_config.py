"""What a user may write, and the one line that answers what he may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from methods import PRESETS, PUBLISHED
from orchestrator.config.loading import load_config, recipe_names
from orchestrator.errors import UserError
from orchestrator.planning.planner import plan
from streams import HubSource


def refused(*overrides: str, source: str | None = None) -> str:
    """The one line of a refused configuration."""
    with pytest.raises(UserError) as caught:
        load_config(source, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_default_recipe() -> None:
    config = load_config()
    assert config.name == "embedded"
    assert [m.label for m in config.methods] == ["ft", "ft+migu", "ft+random"]
    assert Path(config.out).is_absolute()


def test_a_method_changes_some_phases_and_keeps_the_others() -> None:
    method = "{preset: ft, training: {schedule: infinite, infinite: {final: 0.05}}}"
    config = load_config(None, ["training.infinite={anneal: 0.7, final: 0.02}", f"methods=[{method}, average]"])
    found = config.training_for(config.methods[0])
    assert (found.schedule, found.infinite.anneal, found.infinite.final) == ("infinite", 0.7, 0.05)
    assert config.training_for(config.methods[1]).schedule == "constant"


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_reads(name: str) -> None:
    assert load_config(name).name == name


def test_the_published_recipes() -> None:
    first, fifth, sixth = (load_config(f"order{i}-t5") for i in (1, 5, 6))
    assert first.model.name == "t5-large"
    assert (first.model.max_source, first.model.max_target) == (512, 50)
    assert (first.training.global_batch, first.training.lr, first.training.weight_decay) == (64, 1e-4, 0.01)
    assert first.seeds == (42, 1024, 2048)
    rates = {m.label: first.training_for(m).lr for m in first.methods}
    adapters = [f"{name}{rest}" for name in ("lora", "inclora", "olora", "lorareplay") for rest in ("", "+migu")]
    assert rates == {**dict.fromkeys(("ft", "ft+migu", "ft+random"), 1e-4), **dict.fromkeys(adapters, 1e-3)}
    ratios = {m.label: m.plugins[-1].settings["ratio"] for m in first.methods if m.label.endswith("migu")}
    published = {"ft": 0.7, "lora": 0.7, "inclora": 0.7, "olora": 0.05, "lorareplay": 0.4}
    assert ratios == {f"{name}+migu": pytest.approx(1 - masked) for name, masked in published.items()}
    assert fifth.training.epochs_per_task == {"WiC": 2}
    assert sixth.training.epochs_per_task == {"MNLI": 2}


def test_published_training_is_asked_for() -> None:
    methods = "methods=[{preset: olora+migu, training: published}, ft]"
    config = load_config(None, [methods])
    first, second = (config.training_for(m) for m in config.methods)
    assert (first.lr, first.global_batch, first.epochs, first.weight_decay, first.betas) == (
        1e-3,
        64,
        1,
        0.01,
        (0.9, 0.999),
    )
    assert second == config.training, "a preset brings no training unasked"
    assert set(PUBLISHED) <= set(PRESETS)
    for wrong in ("ewc", "[ft]"):
        with pytest.raises(UserError, match=r"no published training of .* is known; known: ft, "):
            load_config(None, [f"methods=[{{preset: {wrong}, training: published}}]"])


def test_a_budget_takes_the_place_of_another(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("extends: embedded\ntraining: {budget: {steps: 5}}")
    (tmp_path / "own.yaml").write_text(f"extends: {tmp_path / 'base.yaml'}\ntraining: {{budget: {{tokens: 1e6}}}}")
    budget = load_config(str(tmp_path / "own.yaml")).training.budget
    assert budget
    assert (budget.steps, budget.tokens) == (None, 1_000_000)


def test_what_makes_no_sequence_goes_with_the_infinite_schedule() -> None:
    infinite = [
        "training.schedule=infinite",
        "methods=[nmc, {tuning: osf, reference: expert, name: osf alone}, ft, joint]",
    ]
    assert len(load_config(None, infinite).methods) == 4
    assert "'osf'" in refused("training.schedule=infinite", "methods=[osf]")


def test_a_batch_without_room_for_old_examples_is_refused() -> None:
    assert "conpet.rho: 1 leaves a batch of 1 no room" in refused("methods=[conpet]", "training.global_batch=1")


def test_set_changes_settings() -> None:
    config = load_config(
        None, ["training.lr=1e-4", "streams.max_train=9", "streams.0.max_test=8", "seeds=[1,2]", "methods=[lora]"]
    )
    assert config.training.lr == 1e-4
    assert (config.streams[0].max_train, config.streams[0].max_test) == (9, 8)
    assert config.seeds == (1, 2)
    assert [m.label for m in config.methods] == ["lora"]
    other = load_config(None, ["methods=[{name: half, tuning: full, plugins: [{name: migu, ratio: 0.5}]}]"])
    assert other.methods[0].plugins[0].settings["ratio"] == 0.5
    assert other.methods[0].label == "half"


def test_a_file_extends_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: embedded\nmethods: [{preset: ft, training: {lr: 1.0e-2}}]\ntraining: {epochs: 2}\n")
    config = load_config(str(file))
    assert config.name == "mine"
    assert config.training.epochs == 2
    assert config.training.global_batch == 32
    assert config.training_for(config.methods[0]).lr == 1e-2


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
        ("methods=[ft, ft]", ["methods: 'ft' is given twice; give each a `name`"]),
        ("methods=[]", ["methods", "at least 1"]),
        ("methods=[{tuning: l2p, plugins: [migu]}]", ["'migu' cannot be combined with 'l2p'", "no linear layer"]),
        ("methods=[{tuning: olora, plugins: [ewc]}]", ["'ewc' cannot be combined with 'olora'", "no old ones to hold"]),
        ("methods=[{tuning: osf, plugins: [l2]}]", ["'l2' cannot be combined with 'osf'", "merged into the weights"]),
        (
            "methods=[{tuning: progprompt, plugins: [projection]}]",
            ["'projection' cannot be combined with 'progprompt'"],
        ),
        ("streams=[embeded]", ["streams.0", "unknown stream 'embeded'", "Did you mean 'embedded'?"]),
        ("training.learning_rate=1", ["training", "unknown key 'learning_rate'"]),
        ("trainng.lr=1", ["unknown key 'trainng'", "Did you mean 'training'?"]),
        ("training.schedule=infinit", ["training.schedule", "'infinite'", "'infinit'"]),
        ("training.infinite={cooldown: 0.9}", ["training.infinite: cooldown = 0.9 must be less than anneal = 0.8"]),
        ("training.infinite={final: 0.5}", ["training.infinite: final = 0.5 must not be greater than constant = 0.1"]),
        ("training.infinite={aneal: 0.5}", ["training.infinite", "unknown key 'aneal'", "Did you mean 'anneal'?"]),
        ("training={schedule: infinite, warmup: 0.2}", ["training.warmup: 0.2", "training.infinite.cooldown = 0.15"]),
        *(
            (f"methods=[{{preset: {name}, training: {{schedule: infinite}}}}]", ["training.schedule", repr(part), why])
            for name, part, why in (
                ("opcm", "merge", "merges the weights"),
                ("osf", "osf", "merged into the weights"),
                ("inclora+migu", "inclora", "weights of its own"),
                ("progprompt", "progprompt", "weights of its own"),
            )
        ),
        ("training.outer=linear", ["training.outer", "'rsqrt'", "'linear'"]),
        ("training.budget={}", ["training.budget: give exactly one of steps, tokens, flops"]),
        ("training.budget={steps: 1, flops: 1}", ["training.budget: give exactly one of steps, tokens, flops"]),
        ("training.budget={steps: 0}", ["training.budget.steps", "greater than or equal to 1", "found 0"]),
        ("training.budget={seconds: 5}", ["training.budget", "unknown key 'seconds'"]),
        (
            "training={budget: {steps: 5}, epochs_per_task: {reviews: 2}}",
            ["training.epochs_per_task", "training.budget"],
        ),
        (
            "methods=[{preset: ft, training: {budget: {steps: 5}}}]",
            ["methods.0.training: budget: a budget is the same for all methods"],
        ),
        ("training.lr=-1", ["training.lr", "greater than 0"]),
        ("training.lr=fast", ["training.lr", "'fast'"]),
        ("methods=[{preset: ft, training: {lr: -1}}]", ["methods.0.training", "lr", "greater than 0"]),
        ("scaling.workers=3", ["training.global_batch: 32 does not divide by scaling.workers = 3"]),
        ("training.micro_batch=5", ["training.micro_batch", "32 is not a multiple of micro_batch x workers = 5 x 1"]),
        ("seeds=[1,1]", ["seeds", "twice"]),
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


def test_wrong_files(tmp_path: Path) -> None:
    assert "Did you mean 'embedded'?" in refused(source="embeded")
    assert "no such file" in refused(source=str(tmp_path / "none.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("model:\n  name: [tiny-t5\ntraining: {}\n")
    assert f"{broken}, line 3: malformed YAML" in refused(source=str(broken))
    broken.write_text("- a\n- b\n")
    assert "expected a mapping of settings, found list" in refused(source=str(broken))
    broken.write_text(f"extends: {broken}\n")
    assert "extends itself" in refused(source=str(broken))


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["model.name=tiny-t6"], ["unknown model 'tiny-t6'", "Did you mean 'tiny-t5'?"]),
        (["model.name=/no/such/folder"], ["model folder '/no/such/folder' does not exist"]),
        (["model.scoring=head"], ["model.scoring: 'head' goes with encoders"]),
        (["model.name=tiny-bert", "model.scoring=generate"], ["cannot generate; allowed: head, similarity"]),
        (["streams=[{name: order1, folder: /no/such/folder}]"], ["'/no/such/folder' does not exist"]),
        (["training.epochs_per_task={nope: 2}"], ["has no task 'nope'", "reviews"]),
        (["model.name=minilm", "model.overrides={a: 1}"], ["overrides go with the built-in models only"]),
    ],
)
def test_what_is_wrong_with_data_and_models(overrides: list[str], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        plan(load_config(None, overrides))
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "part"),
    [
        ("{name: news, hub: some/set}", "needs a pinned `revision`"),
        ("{name: news, hub: some/set, revison: abc}", "revison"),
        ("{name: news}", "hub"),
    ],
)
def test_hub_tasks_are_checked(task: str, part: str) -> None:
    assert part in refused(f"streams=[{{name: mine, tasks: [{task}]}}]")


def test_a_hub_task_reads_and_writes() -> None:
    task = "{name: news, hub: some/set, revision: abc, text: [title, body]}"
    config = load_config(None, [f"streams=[{{name: mine, tasks: [{task}]}}]"])
    again = type(config).model_validate(config.model_dump(mode="json"))
    assert again == config
    source = config.streams[0].settings
    assert isinstance(source, HubSource)
    assert source.tasks[0].text == ("title", "body")
