"""A forecast as `finesieve filter --dry-run` prints it, in 80 columns."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from filters.config.filter import FilterConfig
from filters.run.forecast.forecast import LARGE, Estimate, Forecast
from filters.run.forecast.pilot import DOCUMENTS
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
_WORK = ("rows", "bands", "texts", "resolve")


def forecast_view(forecast: Forecast, config: FilterConfig, *, unicode: bool = True) -> RenderableType:
    """What a run will take, for this dump and for larger ones."""
    pm = "±" if unicode else "+-"
    columns = forecast.columns
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("this dump", *(f"10^{len(str(size)) - 1}" for size in LARGE)):
        table.add_column(name, justify="right", no_wrap=True)

    def row(name: str, *cells: str) -> None:
        table.add_row(name, *cells)

    row("documents", *(_estimate(column.documents, pm) for column in columns))
    row("tokens", *(_estimate(column.tokens, pm) for column in columns))
    row("kept documents", *(_estimate(column.kept, pm) for column in columns))
    row("kept tokens", *(short(column.kept_tokens) for column in columns))
    row("input units", *(f"{column.units:,}" for column in columns))
    row("hash ranges", *(f"{column.partitions:,}" for column in columns))
    row("")
    table.add_row(Text("CPU hours", style="bold"))
    for name in columns[0].cpu_s:
        row(f"  {_phase(name)}", *(_hours(column.cpu_s[name]) for column in columns))
    row("  all", *(_hours(sum(column.cpu_s.values())) + _share(column.cpu_within, pm) for column in columns))
    row("wall clock, at least", *(_duration(column.wall_s) for column in columns))
    row("")
    table.add_row(Text("disk", style="bold"))
    for name in [name for name in _DISK if any(column.disk[name] for column in columns)]:
        row(f"  {_DISK[name]}", *(_bytes(column.disk[name]) for column in columns))
    row("  until it is published", *(_bytes(sum(column.disk.values())) for column in columns))
    row("  afterwards", *(_bytes(sum(column.disk.values()) - column.work_bytes) for column in columns))
    row("")
    table.add_row(Text("peak memory of a process", style="bold"))
    for name in columns[0].peaks:
        row(f"  {name}", *(_bytes(column.peaks.get(name, 0.0)) for column in columns))
    title = (
        f"forecast from a pilot of {forecast.pilot_documents:,} documents of {forecast.draws:,} input unit(s), "
        f"seed {forecast.seed}, {forecast.pilot_cpu_s:.0f} s of CPU"
    )
    notes = "\n".join(f"- {printable(line, 500)}" for line in _notes(forecast, config))
    return Group(Text(title, style="bold"), table, Text(notes))


def _notes(forecast: Forecast, config: FilterConfig) -> list[str]:
    here = forecast.columns[0]
    notes = [*forecast.assumed]
    kept = ", ".join(_DISK[name] for name in _WORK if here.disk[name])
    notes.append(f"{kept}: in the work folder until the run is published")
    cores = f"{here.processes:,} process(es)"
    notes.append(
        f"wall clock: CPU hours of a phase / ({cores} or its units, if fewer), a core to each, nothing waiting; "
        "processors as fast as this one"
    )
    notes.append("join to select: measured on stand-ins for documents, with keys of their own")
    if forecast.pilot_documents < DOCUMENTS / 2:
        notes.append(f"a pilot of {forecast.pilot_documents:,} documents says little")
    memory = {"slurm": config.executor.slurm.memory_per_cpu, "ray": config.executor.ray.memory_per_cpu}
    limit = memory.get(config.executor.kind)
    for name, column in zip(("this dump", *(f"10^{len(str(size)) - 1} documents" for size in LARGE)), forecast.columns,
                            strict=True):  # fmt: skip
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


def _phase(name: str) -> str:
    return "starting workers" if name == "workers" else name


def _share(within: float | None, pm: str) -> str:
    return "" if within is None else f" {pm}{within:.0%}"


def _estimate(found: Estimate, pm: str) -> str:
    return short(found.value) + ("" if not found.within else f" {pm}{found.within:.1%}")


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
