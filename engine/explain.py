"""Why a plan says what it says: of every cell and piece left, the reason in one line.

A piece stores only a fingerprint. What each fingerprint was made of is kept in sweep.json, so that
a stale piece can be told by what has changed since.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from engine.spec import as_mapping, canonical
from engine.work import DONE, FAILED, PENDING, RUNNING, SKIPPED, Survey

UNKNOWN = "by an earlier version or options"


def ingredients(
    sweep: Mapping[str, Any], facts: Mapping[str, Any], prints: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """What each piece's fingerprint was made of, by fingerprint.

    Args:
        sweep: as in sweep.json (`engine.spec.as_mapping`).
        facts: as in sweep.json (`engine.resolve.Facts`).
        prints: the fingerprints (`engine.resolve.fingerprints`).
    """
    made = {}
    for kind in ("pieces", "subset_pieces"):
        for name, print_ in prints[kind].items():
            analysis = facts["analyses"][name]
            made[print_] = {"version of analysis": analysis["version"]}
            if analysis.get("needs"):
                for need in analysis["needs"]:
                    made[print_][f"what it compares of {need}"] = prints["pieces"][need]
                continue
            made[print_]["options"] = analysis["options"]
            made[print_]["sigmas"] = sweep["sigmas"]
            made[print_]["data"] = facts["data"]["content_hash"]
            if analysis["samples"]:
                made[print_]["sampler"] = sweep["sampler"]
            if kind == "pieces":
                made[print_]["numerics.eval_batch"] = sweep["numerics"]["eval_batch"]
                made[print_]["training"] = prints["snapshot"]
    return made


def remembered(record: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The ingredients of every fingerprint that sweep.json has known."""
    if not record:
        return {}
    latest = ingredients(record["sweep"], record["facts"], record["prints"])
    return {**record.get("ingredients", {}), **latest}


def changes(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """What differs between two sets of ingredients, e.g. `options.samples 512 -> 1024`."""
    found = []
    for key in (key for key in new if key in old and canonical(old[key]) != canonical(new[key])):
        name, (before, after) = f"{path}{key}", (old[key], new[key])
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += changes(before, after, f"{name}.")
        elif isinstance(before, int | float | bool) or (isinstance(before, str) and path):
            found.append(f"{name} {before} -> {after}")
        else:  # a list, or a fingerprint that says nothing to a reader
            found.append(f"{name} changed")
    return found


def explain(
    found: Survey, facts: Mapping[str, Any], prints: Mapping[str, Any], record: Mapping | None
) -> list[dict[str, Any]]:
    """Reasons with their counts: `{state, cells, why}`, or `{state, pieces, analysis, why}`."""
    cells = found.cells()
    whys = {
        "cached": ["stored with the settings of this sweep"] * int((cells == DONE).sum()),
        "missing": _missing(found, cells == PENDING, record),
        "failed": [_failure(found.errors.get((i, j))) for i, j in np.argwhere(cells == FAILED)],
        "running": ["being computed"] * int((cells == RUNNING).sum()),
        "skipped": ["the search did not ask for them"] * int((cells == SKIPPED).sum()),
    }
    reasons = [
        {"state": state, "cells": n, "why": why}
        for state, each in whys.items()
        for why, n in Counter(each).items()
    ]
    made = remembered(record)
    now = ingredients(as_mapping(found.sweep), facts, prints)
    for (name, kind, old), n in found.stale_prints.items():
        different = changes(made.get(old, {}), now[prints[kind][name]])
        why = ", ".join(different) or UNKNOWN
        reasons.append({"state": "stale", "pieces": n, "analysis": name, "why": why})
    return reasons


def _failure(error: str | None) -> str:
    return (error or "unknown reason").strip().splitlines()[0]


def _missing(
    found: Survey, pending: np.ndarray, record: Mapping[str, Any] | None
) -> Iterable[str]:
    """For each pending cell that is not merely stale, why it is not there."""
    known = record["sweep"] if record else None
    axes = {**known["axes"], "kimg": known["kimg"]} if known else {}
    new = [a for a in found.sweep.analyses if known and a not in known["analyses"]]
    names = np.array(["", *found.sweep.analyses])
    for i, j in np.argwhere(pending):
        point = {**dict(found.trials[i].coordinates), "kimg": found.sweep.kimg[j]}
        row = found.pieces[i, j]
        lacking = {*names[row == PENDING]} - {""} - found.stale_at.get((i, j), set())
        fresh = [f"{a}={v}" for a, v in point.items() if known and v not in axes.get(a, ())]
        if not known:
            yield "nothing has been run yet"
        elif fresh:
            yield f"{fresh[0]} is new"
        elif row[0] != DONE:
            yield "not trained yet"
        elif lacking and lacking <= {*new}:
            yield f"analysis {', '.join(sorted(lacking))} is new"
        elif lacking or not found.stale_at.get((i, j)):
            yield "not measured yet"


def lines(reasons: Iterable[Mapping[str, Any]]) -> list[str]:
    """The reasons as text, one line each."""
    text = []
    for reason in reasons:
        if "pieces" in reason:
            count = f"{reason['pieces']} pieces of {reason['analysis']}"
        else:
            count = f"{reason['cells']} cells"
        retry = "; `run --retry-failed` tries again" if reason["state"] == "failed" else ""
        text.append(f"{reason['state']:<8} {count}: {reason['why']}{retry}")
    return text
