"""A forecast as `finesieve filter --dry-run` prints it, in 80 columns."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from filters.config.filter import FilterConfig
from filters.run.forecast import LARGE, PUBLISHED, SLOW_DOCUMENTS, Forecast
from filters.statistics.resampling import Estimate
from filters.terminal import printable, short

_DISK = {
    "rows": "rows of documents",
    "bands": "band files",
    "texts": "texts",
    "resolve": "join to select",
    "output": "output",
    "side_files": "side files",
    "fingerprints": "fingerprints",
}


def forecast_view(forecast: Forecast, config: FilterConfig, *, unicode: bool = True) -> RenderableType:
    """What a run will take, for this dump and for larger ones."""
    pm = "±" if unicode else "+-"
    columns = forecast.columns
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in _names():
        table.add_column(name, justify="right", no_wrap=True)

    def row(name: str, *cells: str) -> None:
        table.add_row(name, *cells)

    def heading(text: str) -> None:
        row("")
        table.add_row(Text(text, style="bold"))

    for name in ("documents", "tokens", "kept", "kept_tokens"):
        estimates = [getattr(column, name) for column in columns]
        label = {"kept": "kept documents", "kept_tokens": "kept tokens"}.get(name, name)
        row(label, *(short(some.value) + _within(some, pm) for some in estimates))
    row("input units", *(f"{column.units:,}" for column in columns))
    row("hash ranges", *(f"{column.partitions:,}" for column in columns))
    heading("CPU hours")
    for name in columns[0].cpu_s:
        label = "starting workers" if name == "workers" else name
        row(f"  {label}", *(_hours(column.cpu_s[name]) for column in columns))
    row("  all", *(_hours(column.cpu.value or 0) + _within(column.cpu, pm) for column in columns))
    row("wall clock, at least", *(_duration(column.wall_s) for column in columns))
    heading("disk")
    for kind in [kind for kind in _DISK if any(column.disk.get(kind) for column in columns)]:
        row(f"  {_DISK[kind]}", *(_bytes(column.disk[kind]) for column in columns))
    row("  until it is published", *(_bytes(sum(column.disk.values())) for column in columns))
    row("  afterwards", *(_bytes(sum(column.disk.values()) - column.work_bytes) for column in columns))
    heading("peak memory of a process")
    for name in columns[0].peaks:
        row(f"  {name}", *(_bytes(column.peaks.get(name, 0.0)) for column in columns))
    title = (
        f"forecast from {forecast.pilot_documents:,} documents of {forecast.draws:,} input unit(s), "
        f"seed {forecast.seed}, {forecast.pilot_cpu_s:.0f} s of CPU"
    )
    notes = "\n".join(f"- {printable(line, 500)}" for line in _notes(forecast, config))
    return Group(Text(title, style="bold"), table, Text(notes))


def _names() -> list[str]:
    return ["this dump", *(f"10^{len(str(size)) - 1}" for size in LARGE)]


def _notes(forecast: Forecast, config: FilterConfig) -> list[str]:
    here = forecast.columns[0]
    kept = ", ".join(label for kind, label in _DISK.items() if kind not in PUBLISHED and here.disk.get(kind))
    notes = [
        *forecast.assumed,
        f"{kept}: in the work folder until the run is published",
        f"wall clock: CPU hours of a phase / ({here.processes:,} process(es) or its units, if fewer), a core to each, "
        "nothing waiting; processors as fast as this one",
    ]
    if forecast.pilot_documents < SLOW_DOCUMENTS / 2:
        notes.append(f"{forecast.pilot_documents:,} documents say little")
    memory = {"slurm": config.executor.slurm.memory_per_cpu, "ray": config.executor.ray.memory_per_cpu}
    limit = memory.get(config.executor.kind)
    for name, column in zip(_names(), forecast.columns, strict=True):
        large = [phase for phase, size in column.peaks.items() if limit and size > limit]
        if large:
            notes.append(
                f"{name}: {', '.join(large)} need more than executor.{config.executor.kind}.memory_per_cpu "
                f"({_bytes(limit or 0)})"
            )
    if forecast.quarantined:
        notes.append(f"{forecast.quarantined:.2%} of the records are quarantined")
    if forecast.stops:
        notes.append(
            f"THE RUN WOULD STOP: quarantine.max_share is {config.quarantine.max_share:.0%}. Look at the input first"
        )
    return notes


def _within(found: Estimate, pm: str) -> str:
    """Half the width of the interval, as a share of the value."""
    if not found.value or found.low is None or found.high is None or found.high == found.low:
        return ""
    return f" {pm}{(found.high - found.low) / 2 / found.value:.1%}"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    if hours >= 100:
        return f"{hours:,.0f}"
    return f"{hours:.2g}" if hours >= 0.0001 or not hours else "<0.0001"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.0f} h" if seconds < 72 * 3600 else f"{seconds / 86400:,.1f} days"


def _bytes(number: float) -> str:
    for size, unit in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= size:
            return f"{number / size:.3g} {unit}" if number < 1000 * size else f"{number / size:,.0f} {unit}"
    return f"{number / 1e3:.0f} kB"
