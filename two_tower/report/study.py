"""A study on a page: what its jobs have come to, one after another, and which keys matter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from two_tower.plot import WIDTH, Picture, Scale
from two_tower.report.blocks import Block, Heading, Table

STATES = {"complete": "complete", "pruned": "given up", "fail": "failed", "running": "running", "waiting": "waiting"}


def study_blocks(study: Mapping[str, Any]) -> list[Block]:
    """What ``study.json`` says, see `two_tower.study.Study.write`."""
    jobs, metric = study["jobs"], study["metric"]
    counts = Counter(STATES[job["state"]] for job in jobs)
    blocks: list[Block] = [Heading("Study"), f"{len(jobs)} jobs: {', '.join(f'{n} {s}' for s, n in counts.items())}."]
    best = next((job for job in jobs if job["job"] == study["best"]), None)
    if best:
        tried = " ".join(best["overrides"])
        blocks += [f"Job {best['job'] + 1} has the best {metric}, {best['value']:.4f}: {tried}.", history(study)]
    if study["importance"]:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in study["importance"].items())
        about = f"What the figures differ by, by key (fANOVA): {shares}. Of few jobs this says little."
        blocks += [about, importance(study)]
    rows = [
        [str(job["job"] + 1), " ".join(job["overrides"]), str(job["checks"]), f"{job['value']:.4f}"]
        for job in jobs
        if job["state"] == "pruned"
    ]
    if rows:
        blocks += [Heading("Given up", 3), Table(["job", "tried", "after check", metric], rows, left=2)]
    return blocks


def history(study: Mapping[str, Any]) -> Picture:
    """A dot for each job, hollow where it was given up, and a line for the best so far."""
    done = [job for job in study["jobs"] if job["value"] is not None]
    y, x = Scale([job["value"] for job in done], 290, 10), Scale([0, len(study["jobs"])], 50, WIDTH - 20)
    picture = Picture(f"{study['metric']} of every job, and the best so far", 334)
    picture.rows(y, x.start, x.end)
    picture.columns(x, y.end, y.start, grid=False)
    picture.text((x.start + x.end) / 2, 326, "job", "middle")
    complete = [job for job in done if job["state"] == "complete"]
    best = accumulate((job["value"] for job in complete), max if study["direction"] == "maximize" else min)
    picture.path("polyline", "curve c1", [(x(job["job"] + 1), y(v)) for job, v in zip(complete, best, strict=True)])
    for job in done:
        kind, tooltip = ("a", "") if job["state"] == "complete" else ("hollow", " (given up)")
        about = f"job {job['job'] + 1}: {job['value']:.4f}{tooltip}, {' '.join(job['overrides'])}"
        picture.add("circle", kind, about, cx=x(job["job"] + 1), cy=y(job["value"]), r=4)
    return picture


def importance(study: Mapping[str, Any]) -> Picture:
    """A bar for each key: its share of what the figures of the jobs differ by."""
    height, bottom = 26, 26 * len(study["importance"]) + 8
    picture, x = Picture("How much each key matters", bottom + 24), Scale([0, 1], 360, WIDTH - 30)
    picture.columns(x, 0, bottom)
    for number, (key, share) in enumerate(study["importance"].items()):
        y = height * number + 8
        picture.text(340, y + 14, key, "end")
        picture.add("rect", "a", f"{key}: {share:.2f}", x=x(0), y=y, width=x(share) - x(0), height=height - 8)
    return picture
