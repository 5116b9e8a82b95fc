"""Pictures of a sequence, as a client is given them."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from orchestrator.store.view import fold
from orchestrator.tracking.figures import log_curves, log_matrix
from tests.orchestrator.store.examples import point, started


class Artifacts:
    """Keeps what it is given to log."""

    def __init__(self) -> None:
        self.files: dict[str, Any] = {}

    def log_dict(self, run_id: str, content: Any, file: str) -> None:
        """A file of plain values."""
        self.files[f"{run_id}/{file}"] = content

    def log_figure(self, run_id: str, figure: Figure, file: str) -> None:
        """A picture."""
        self.files[f"{run_id}/{file}"] = figure


def test_a_matrix_is_numbers_and_a_picture() -> None:
    client = Artifacts()
    log_matrix(client, "run", "migu/overlap", [[1.0, 0.5], [0.5, 1.0]], ("sport", "law"), 2)
    assert list(client.files) == [
        "run/diagnostics/migu-overlap-after-2.json",
        "run/diagnostics/migu-overlap-after-2.png",
    ]
    numbers = client.files["run/diagnostics/migu-overlap-after-2.json"]
    assert numbers == {"tasks": ["sport", "law"], "migu/overlap": [[1.0, 0.5], [0.5, 1.0]]}


def test_curves_are_in_the_unit_of_the_scores() -> None:
    for scorers, label in (((), "score (%)"), (["perplexity"] * 2, "score (perplexity)")):
        begun = started("sport", "law").model_copy(update={"sequence": {"scorers": scorers}})
        client = Artifacts()
        log_curves(client, "run", fold("s", [begun, point(0, 0, 0, 10.0), point(0, 3, 0, 90.0)]))
        figure = client.files["run/curves/scores-amid-training.png"]
        assert figure.axes[0].get_ylabel() == label
        assert list(figure.axes[0].lines[0].get_xdata()) == [0, 3]
    mixed = started("sport", "law").model_copy(update={"sequence": {"scorers": ["perplexity", "exact-match"]}})
    client = Artifacts()
    log_curves(client, "run", fold("s", [mixed, point(0, 0, 0, 10.0)]))
    (figure,) = client.files.values()
    assert figure.axes[0].get_ylabel() == "score (in the unit of its scorer)"
