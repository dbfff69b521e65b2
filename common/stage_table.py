"""The table of ``--profile``: every stage of a run with its seconds, its share, and how often it was entered."""

from __future__ import annotations

import time

from common.provenance import peak_memory_mib
from common.stages import Place, Profile, Row
from common.text import aligned

OTHER = "other"


def table(profile: Profile) -> str:
    """The stages of a run that has ended, in the order in which they were met.

    Those of the outermost level and "other" add up to the total. Those inside of another are indented below it: they are part
    of it, and its last one, "other" too, is what is left of it.
    """
    total = time.perf_counter() - profile.began
    heads = ["stage", "seconds", "share", "calls", "ms per call", *(["most of a process"] if profile.most else [])]
    lines = [heads, *(_line(profile, place, row, total) for place, row in with_the_rest(profile.rows, total).items())]
    lines.append(["total", f"{total:.2f}", "100.0 %", "", "", *([""] if profile.most else [])])
    return "\n".join([aligned(lines), *_remarks(profile, total)])


def with_the_rest(rows: dict[Place, Row], total: float) -> dict[Place, Row]:
    """``rows`` in the order of a tree, each level ended by a row "other" for what is in none of the stages there."""
    found: dict[Place, Row] = {}

    def descend(outer: Place, seconds: float) -> None:
        inside = [place for place in rows if place[:-1] == outer]
        for place in inside:
            found[place] = rows[place]
            descend(place, rows[place].seconds)
        if inside:
            rest = (*outer, OTHER)
            found[rest] = Row(max(0.0, seconds - sum(rows[place].seconds for place in inside)))

    descend((), total)
    return found


def _line(profile: Profile, place: Place, row: Row, total: float) -> list[str]:
    name = "  " * (len(place) - 1) + place[-1]
    calls = [str(row.calls), f"{1000 * row.seconds / row.calls:.2f}"] if row.calls else ["", ""]
    most = [f"{profile.most[place]:.2f}" if place in profile.most else ""] if profile.most else []
    return [name, f"{row.seconds:.2f}", f"{100 * row.seconds / total:.1f} %", *calls, *most]


def _remarks(profile: Profile, total: float) -> list[str]:
    """What no row tells."""
    remarks = [f"{n} {what}, {n / total:.1f} a second of the whole run" for what, n in profile.counts.items()]
    if profile.beside:
        told = ", ".join(f"{name} {row.seconds:.2f} s" for name, row in profile.beside.items())
        remarks.append(f"meanwhile, in other processes and threads, together: {told}")
    peak = peak_memory_mib()
    remarks.append("peak memory: " + ", ".join(f"{name} {mib} MiB" for name, mib in peak.items()))
    if profile.waited:
        remarks.append("every stage waited for the device, so the run was slower than without --profile")
    return remarks
