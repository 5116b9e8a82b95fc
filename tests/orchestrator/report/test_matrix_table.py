"""An accuracy matrix as a table."""

from __future__ import annotations

from rich.console import Console

from orchestrator.report.matrix_table import matrix_table
from tests.orchestrator.report.examples import mixed_result_of, result_of


def test_the_initial_model_comes_first_and_the_task_just_learnt_stands_out() -> None:
    table = matrix_table(result_of(accuracy_matrix=[[10.0, None], [80.0, 25.0], [60.0, 90.0]]))
    console = Console(width=80, force_terminal=True, color_system="standard")
    with console.capture() as captured:
        console.print(table)
    before, sport, law = (line for line in captured.get().splitlines() if "│" in line)
    assert "–" in before
    assert "10.0" in before
    for line, own, other in ((sport, "80.0", "25.0"), (law, "90.0", "60.0")):
        assert f"\x1b[1m{own}" in line
        assert f"\x1b[1m{other}" not in line


def test_a_stream_of_several_scorers_says_the_unit_of_each_task() -> None:
    table = matrix_table(mixed_result_of())
    assert str(table.title) == "ft, seed 1: score on each task after each task"
    assert [str(column.header) for column in table.columns] == ["after", "sport (perplexity)", "law (%)"]
    assert [str(cell) for cell in table.columns[1].cells] == ["10.00", "80.00", "60.00"]
    lower = matrix_table(result_of(scorers=["bits-per-byte", "bits-per-byte"]))
    assert str(lower.title) == "ft, seed 1: score (bits per byte) on each task after each task"
    assert str(matrix_table(result_of()).title) == "ft, seed 1: score (%) on each task after each task"
