"""Rounds of `orchestrator bench chaos`: a real run is struck once, the command is repeated until it succeeds, then compared."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console

from orchestrator.bench.chaos.compare import Difference, compare, compare_copy, counts
from orchestrator.bench.chaos.experiment import SETTINGS, Setting, command_line
from orchestrator.bench.chaos.facts import Facts, finished_states, first_step_after, read_facts, repeated_seconds
from orchestrator.bench.chaos.faults import FAULTS
from orchestrator.bench.chaos.processes import ROLES, Command, Place, Role, at_place
from orchestrator.bench.chaos.table import summary
from orchestrator.planning.experiment import check_writable

# The command is given again so often at most; Ray finds out that a part of it is gone within about a minute
MOST_REPEATS = 4
PATIENCE_SECONDS = 180.0
# A run may be faster than the undisturbed one was, and the very end of a process then comes too early to be hit
LAST_MOMENT = 0.9


@dataclass(frozen=True)
class Round:
    """What happens in one round. All of it follows from the seed."""

    number: int
    kind: str
    setting: Setting
    # of the time for which the undisturbed run has what is struck
    fraction: float
    # chooses which of several processes or files, and for how long
    seed: int


@dataclass
class Outcome:
    """What became of a round. `done` is what the fault did; empty where the run had ended before.

    `finished` states were there at that moment; `trained_again` of them were made once more.
    """

    round: Round
    done: str = ""
    seconds_in: float = 0.0
    finished: int = 0
    codes: list[int | None] = field(default_factory=list)
    recovered: bool = False
    trained_again: int = 0
    repeated_s: float = 0.0
    recover_s: float | None = None
    tracebacks: int = 0
    behind: str | None = None
    differences: list[Difference] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether the run came back, and nothing is lost, doubled, other or made twice."""
        return self.recovered and not self.differences and not self.trained_again

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain values."""
        values = asdict(self)
        chosen = values.pop("round")
        chosen["setting"] = str(self.round.setting)
        values["differences"] = [str(difference) for difference in self.differences]
        return chosen | values | counts(self.differences) | {"whole": self.is_whole}


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing happened to: its facts, its length, and for how long it had each of the things that are struck."""

    facts: Facts
    seconds: float
    spans: dict[Role, float]


def choose_rounds(count: int, seed: int, kinds: Sequence[str]) -> list[Round]:
    """So many rounds, in which each kind comes about equally often."""
    rng = Random(seed)
    rounds: list[Round] = []
    waiting: list[str] = []
    for number in range(count):
        if not waiting:
            waiting = rng.sample(kinds, len(kinds))
        kind = waiting.pop()
        # scores that the training workers compute have no actors that could be struck
        settings = [setting for setting in SETTINGS if kind != "kill-scorer" or setting.placement == "async"]
        rounds.append(Round(number, kind, rng.choice(settings), rng.uniform(0, LAST_MOMENT), rng.getrandbits(32)))
    return rounds


def chaos(console: Console, count: int, seed: int, kinds: Sequence[str], out: Path | None = None) -> dict[str, Any]:
    """Strike a real run so many times, and say what it lost. `out` keeps the folders of all runs."""
    rounds = choose_rounds(count, seed, kinds)
    undisturbed: dict[Setting, Undisturbed] = {}
    outcomes: list[Outcome] = []
    with _folder(out) as folder, _progress(console) as say:
        for chosen in rounds:
            if chosen.setting not in undisturbed:
                say(f"an undisturbed run ({chosen.setting})")
                undisturbed[chosen.setting] = run_undisturbed(folder / f"undisturbed-{chosen.setting}", chosen.setting)
            say(f"round {chosen.number + 1} of {count}: {chosen.kind} ({chosen.setting})")
            outcome = play(folder / f"{chosen.number:03d}-{chosen.kind}", chosen, undisturbed[chosen.setting])
            outcomes.append(outcome)
            _tell(outcome, console)
    lengths = {str(setting): round(run.seconds, 1) for setting, run in undisturbed.items()}
    played = [outcome.to_json() for outcome in outcomes]
    return {"bench": "chaos", "rounds": count, "seed": seed, "undisturbed_s": lengths} | {
        "kinds": summary(played),
        "played": played,
    }


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is not None:
        check_writable(str(out))
        out.mkdir(parents=True, exist_ok=True)
        yield out.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="bench-chaos-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    """A function that says what is going on: in a line that changes on a terminal, else in lines."""
    if not console.is_terminal:
        yield lambda line: console.print(line, highlight=False, soft_wrap=True)
        return
    with console.status("starting") as status:
        yield status.update


def _tell(outcome: Outcome, console: Console) -> None:
    chosen = outcome.round
    words = [f"round {chosen.number + 1}: {chosen.kind} ({chosen.setting}) after {outcome.seconds_in:.1f} s"]
    words.append(outcome.done or "missed")
    words.append(f"exit codes {outcome.codes}")
    if not outcome.recovered:
        words.append("NOT RECOVERED")
    if outcome.trained_again:
        words.append(f"{outcome.trained_again} finished states made again")
    if outcome.tracebacks:
        words.append(f"{outcome.tracebacks} tracebacks on the screen")
    if outcome.behind:
        words.append(outcome.behind)
    for difference in outcome.differences[:3]:
        words.append(str(difference))
    if len(outcome.differences) > 3:
        words.append(f"and {len(outcome.differences) - 3} more differences")
    style = "green" if outcome.is_whole else "red"
    console.print("; ".join(words), style=style, highlight=False, soft_wrap=True)


def run_undisturbed(folder: Path, setting: Setting) -> Undisturbed:
    """Run the experiment once in peace. Raises RuntimeError where not even that succeeds."""
    with _new_place(folder, setting) as place:
        command = place.start()
        began = time.monotonic()
        first: dict[Role, float] = {}
        last: dict[Role, float] = {}
        while command.is_running:
            for role in ROLES:
                if command.having(role):
                    last[role] = time.monotonic()
                    first.setdefault(role, last[role])
            # looking takes a share of the CPUs that the run does not have then
            time.sleep(0.3)
        seconds = time.monotonic() - began
        if command.driver.returncode != 0:
            raise RuntimeError(f"the undisturbed run failed: {command.log}.err: {command.printed('err')[-2000:]}")
        facts = read_facts(place.out)
    spans = {role: last[role] - first[role] for role in first}
    return Undisturbed(facts, seconds, spans)


@contextlib.contextmanager
def _new_place(folder: Path, setting: Setting) -> Iterator[Place]:
    # of an earlier measurement, which another one must not go on from
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with at_place(folder, command_line(folder, setting)) as place:
        yield place


def play(folder: Path, chosen: Round, undisturbed: Undisturbed) -> Outcome:
    """Strike a run once, repeat its command until it succeeds, and compare."""
    outcome = Outcome(chosen)
    with _new_place(folder, chosen.setting) as place:
        command = place.start()
        outcome.done = _strike(chosen, command, undisturbed, outcome)
        struck = time.time()
        states = finished_states(place.out)
        outcome.finished = len(states)
        began = _repeat(place, command, outcome, PATIENCE_SECONDS + 5 * undisturbed.seconds, struck)
        outcome.recovered = outcome.codes[-1] == 0
        for key, made in finished_states(place.out).items():
            outcome.trained_again += states.get(key, made) != made
        first_step = first_step_after(place.out, began[-1], len(began) > 1)
        # nothing was left to train: then what is left took all of the last start
        recovered = first_step or time.time()
        outcome.recover_s = round(recovered - began[-1], 1)
        outcome.repeated_s = repeated_seconds(place.out)
        outcome.differences = compare(undisturbed.facts, read_facts(place.out)) + compare_copy(place.out)
    # beside what its commands have printed
    (folder / "outcome.json").write_text(json.dumps(outcome.to_json(), indent=1))
    return outcome


def _strike(chosen: Round, command: Command, undisturbed: Undisturbed, outcome: Outcome) -> str:
    """Wait for the moment, and strike. Returns what was done; nothing where the run ended before."""
    fault = FAULTS[chosen.kind]
    rng = Random(chosen.seed)
    command.wait_for(fault.target)
    time.sleep(chosen.fraction * undisturbed.spans.get(fault.target, 0.0))
    # a group of workers may just be between two lives
    targets = command.wait_for(fault.target)
    outcome.seconds_in = round(time.time() - command.began, 2)
    if not targets:
        return ""
    return fault.strike(command, rng.choice(sorted(targets, key=lambda process: process.pid)), rng)


def _repeat(place: Place, command: Command, outcome: Outcome, patience: float, struck: float) -> list[float]:
    """Wait for the command, and give it again until it has done all. Returns since when it was recovering, each time."""
    began = [struck]
    if FAULTS[outcome.round.kind].between_starts:
        outcome.codes.append(command.wait(patience))
        command = place.start()
        began.append(command.began)
    for number in range(1 + MOST_REPEATS):
        outcome.codes.append(command.wait(patience))
        outcome.behind = command.result().get("mlflow_behind")
        outcome.tracebacks += command.printed("err").count("Traceback (most recent call last)")
        # the command itself says whether MLflow's copy is behind, and to give it again
        if outcome.codes[-1] == 0 and not outcome.behind:
            break
        if number < MOST_REPEATS:
            command = place.start()
            began.append(command.began)
    return began
