"""Two kinds of plot, each written to a PNG file.

matplotlib is imported when a plot is drawn, with its Agg canvas only: no window is opened and no
global state is changed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]


def lines(
    path: Path,
    panels: Mapping[str, Mapping[str, Points]],
    x_label: str,
    y_label: str,
    log_x: bool = False,
) -> Path:
    """One panel beside the other, each a title and its named lines of (x, y) points."""
    figure, axes = _figure(len(panels))
    for panel, (title, series) in zip(axes, panels.items(), strict=True):
        for name, points in series.items():
            panel.plot([x for x, _ in points], [y for _, y in points], marker="o", label=name)
        panel.set(title=title, xlabel=x_label, ylabel=y_label)
        panel.set_xscale("log" if log_x else "linear")
        panel.grid(alpha=0.3)
        if any(series):
            panel.legend(fontsize="small")
    return _save(figure, path)


def heat_map(
    path: Path,
    values: Sequence[Sequence[float]],
    rows: Sequence[object],
    columns: Sequence[object],
    title: str = "",
    x_label: str = "",
    y_label: str = "",
) -> Path:
    """A grid of values from 0 to 1, each written in its cell; `rows` and `columns` name them."""
    figure, (panel,) = _figure(1)
    panel.imshow(values, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
    panel.set(title=title, xlabel=x_label, ylabel=y_label)
    panel.set_xticks(range(len(columns)), [str(column) for column in columns])
    panel.set_yticks(range(len(rows)), [str(row) for row in rows])
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            panel.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize="small")
    return _save(figure, path)


def _figure(panels: int) -> "tuple[Figure, list[Axes]]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * panels, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, panels, i + 1) for i in range(panels)]


def _save(figure: "Figure", path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
