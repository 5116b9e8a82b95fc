"""The plot of a matrix: each value stands in its own field, and a colour means the same in every plot."""

from __future__ import annotations

from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from orchestrator.evaluation.curves.stability import Point
from orchestrator.report.plots import first_steps, heat_map, score_curves

MATRIX = [[1.0, 0.25, 0.599], [0.5, 0.6, 0.0]]


def drawn() -> Figure:
    return heat_map(MATRIX, ["sport", "law", "news"], "overlap")


def test_each_value_stands_in_its_field_and_can_be_read_on_it() -> None:
    """The column is x, the row y; numbers are light on the dark end of the colours, below 0.6."""
    shown = {text.get_position(): (text.get_text(), text.get_color()) for text in drawn().axes[0].texts}
    assert shown == {
        (0, 0): ("1.00", "black"),
        (1, 0): ("0.25", "white"),
        (2, 0): ("0.60", "white"),
        (0, 1): ("0.50", "white"),
        (1, 1): ("0.60", "black"),
        (2, 1): ("0.00", "white"),
    }


def test_numbers_are_light_where_the_colour_is_dark() -> None:
    """By the luminance of the colour itself."""
    axes = drawn().axes[0]
    (image,) = axes.images
    for text in axes.texts:
        column, row = text.get_position()
        red, green, blue, _ = image.cmap(image.norm(MATRIX[row][column]))
        luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        assert abs(luminance - sum(to_rgb(text.get_color())) / 3) > 0.4, text.get_text()


def test_the_colours_run_from_zero_to_one_whatever_the_matrix_holds() -> None:
    (image,) = heat_map([[0.4, 0.5], [0.4, 0.5]], ["a", "b"], "").axes[0].images
    assert image.get_clim() == (0, 1)


def test_axes_name_the_tasks_and_the_title_what_it_is() -> None:
    axes = heat_map([[0.1, 0.2], [0.3, 0.4]], ["sport", "law"], "overlap").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["sport", "law"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sport", "law"]
    assert axes.get_title(loc="left") == "overlap"


# the first task has three steps, the second two
POINTS = [Point(1, 2, 1, 80.0), Point(0, 0, 0, 10.0), Point(0, 3, 0, 90.0), Point(1, 0, 0, 90.0), Point(1, 2, 0, 40.0)]


def test_a_line_for_each_task_over_the_steps_of_all() -> None:
    axes = score_curves(POINTS, ["sport", "law", "news"], "%", "ft").axes[0]
    lines = {}
    for line in axes.lines:
        lines[line.get_label()] = (list(line.get_xdata()), list(line.get_ydata()))
    assert lines["sport"] == ([0, 3, 3, 5], [10, 90, 90, 40])
    assert lines["law"] == ([5], [80])
    assert "news" not in lines
    assert axes.get_ylabel() == "score (%)"
    assert axes.get_title(loc="left") == "ft"
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["sport", "law"]
    # one switch, besides what is still to come
    dashed = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert dashed == [3, 5]


def test_tasks_begin_where_those_before_end() -> None:
    assert first_steps(POINTS, 2) == [0, 3, 5]
    assert first_steps([], 2) == [0, 0, 0]
