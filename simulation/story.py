"""One seed's story: a month of due times, edits, outages, deaths and changes, and what people do about failures."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from random import Random

import dagster as dg

from m3ter_dagster.history.log import DUE_TAG, SCHEDULE_TAG, root_id
from simulation import faults, processes
from simulation.due_times import Schedule
from simulation.fates import Fate, fate
from simulation.invariants import Violated
from simulation.system import BEGIN, System

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
END = BEGIN + 30 * DAY
LOOKS = (2 * MINUTE, 12 * MINUTE, 3 * MINUTE, 3 * MINUTE, 40 * MINUTE, 5 * HOUR, 9 * HOUR, 10 * HOUR, 8 * HOUR)
"""How long after one look the next one is while runs have not ended."""
MOST_LOOKS = 8
"""In one step."""
SHORT, LONG = (24, 30, 36, 48), (72, 96, 120, 168)
"""Hours from one export to the next."""

Tell = Callable[[str], None]


class Story:
    def __init__(self, seed: int, system: System, tell: Tell) -> None:
        self._seed = seed
        self._random = Random(seed)
        self._system = system
        self._tell = tell
        self._plan: list[tuple[datetime, int, str, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._processes = itertools.count(1)
        self._looks = 0
        self._is_over = False
        self._known_failures: set[str] = set()
        self._runs: list[dg.DagsterRun] = []
        """As they were when they were last looked at."""

    def play(self) -> None:
        """Violated: something does not hold."""
        self._begin()
        while self._plan:
            moment, _, words, happen = heapq.heappop(self._plan)
            self._system.move_to(moment)
            if words:
                self._say(words)
            happen()
            self._settle()
        self._all_has_ended()

    def _say(self, words: str) -> None:
        self._tell(f"{self._system.now:%m-%d %H:%M:%S}  {words}")

    def _at(self, moment: datetime, words: str, happen: Callable[[], None] = lambda: None) -> None:
        heapq.heappush(self._plan, (moment, next(self._numbers), words, happen))

    # What is planned

    def _begin(self) -> None:
        random, system = self._random, self._system
        both = ("warehouse", "archive")
        schedules = [
            Schedule(
                "often", ("meter",), ("warehouse",), random.choice(SHORT), BEGIN - random.randint(0, 900) * MINUTE
            ),
            Schedule("bills", ("meter", "product"), both, random.choice(LONG), BEGIN + random.randint(1, 99) * MINUTE),
            Schedule("weekly", ("account", "account_plan", "product"), both, 168, BEGIN - 400 * DAY),
        ]
        choices = ("previous", "twoPasses", "onePass")
        system.write_exports(
            [replace(one, changes=random.random() < 0.3, completeness=random.choice(choices)) for one in schedules]
        )
        self._at(BEGIN, "the daemon starts", system.start_daemon)
        self._spans(2, 2, "the daemon", system.stop_daemon, system.start_daemon, most=60)
        self._spans(
            2,
            2,
            "m3ter",
            partial(self._go_down, system.api, faults.unavailable),
            partial(self._come_up, system.api),
            most=30,
        )
        self._spans(
            1,
            2,
            "the store",
            partial(self._go_down, system.store, faults.slow_down),
            partial(self._come_up, system.store),
            most=30,
        )
        for moment in (self._sometime() for _ in range(5)):
            # A daemon that looks each minute knows until when the old file was right.
            self._at(moment, "")
            self._at(moment, "", self._edit)
        self._at(END, "everything is repaired", self._repair)

    def _sometime(self) -> datetime:
        return BEGIN + self._random.random() * (END - BEGIN - DAY)

    def _spans(
        self, least: int, most_often: int, what: str, stop: Callable[[], None], start: Callable[[], None], *, most: int
    ) -> None:
        moments = sorted(self._sometime() for _ in range(2 * self._random.randint(least, most_often)))
        for begin, latest in zip(moments[::2], moments[1::2], strict=True):
            end = min(latest, begin + self._random.random() * most * HOUR)
            self._at(begin, f"{what} goes down", stop)
            self._at(end, f"{what} is back", start)

    def _go_down(self, gate: faults.Gate, effect: faults.Effect) -> None:
        gate.down = effect

    def _come_up(self, gate: faults.Gate) -> None:
        gate.down = None

    def _repair(self) -> None:
        system = self._system
        self._is_over = True
        self._known_failures.clear()
        system.api.down = system.store.down = None
        if system.is_broken:
            system.write_exports(system.schedules)
        if not system.daemon:
            system.start_daemon()

    # exports.yaml

    def _edit(self) -> None:
        if self._system.is_broken:
            return
        random, schedules = self._random, list(self._system.schedules)
        place = random.randrange(len(schedules))
        one = schedules[place]
        kind = random.choice(("cadence", "rename", "entity", "broken", "cadence", "broken"))
        if kind == "cadence":
            hours = random.choice([hours for hours in (SHORT if one.hours in SHORT else LONG) if hours != one.hours])
            schedules[place] = replace(one, hours=hours)
            words = f"schedule {one.code} is due every {hours} hours"
        elif kind == "rename":
            schedules[place] = replace(one, code=f"{one.code}_{next(self._numbers)}")
            words = f"schedule {one.code} is renamed to {schedules[place].code}"
        elif kind == "entity":
            schedules[place] = replace(one, entities=tuple(dict.fromkeys((*one.entities, "product"))))
            words = f"schedule {one.code} exports {schedules[place].entities}"
        else:
            words = "exports.yaml is broken"
            self._at(self._system.now + random.random() * 50 * HOUR, "", self._mend)
        self._say(words)
        self._system.write_exports(schedules, broken=kind == "broken")

    def _mend(self) -> None:
        if self._system.is_broken:
            self._say("exports.yaml is mended")
            self._system.write_exports(self._system.schedules)

    # What follows

    def _settle(self) -> None:
        """Look and execute until nothing happens any more; then plan the next look."""
        system = self._system
        for _ in range(self._random.randint(0, 5)):
            system.organization.change(self._random)
        for _ in range(MOST_LOOKS):
            launched, before = system.look(), self._runs
            self._runs = system.find_runs()
            for run_id in launched:
                self._execute(run_id)
            if self._runs == before:
                break
            system.clock.shift(31)
        system.check()
        self._people_look()
        self._plan_looks()

    def _execute(self, run_id: str) -> None:
        run = self._system.instance.get_run_by_id(run_id)
        assert run
        due = run.tags[DUE_TAG]
        self._process(
            processes.executed(run_id), root_id(run), f"run {run_id[:8]} of {run.tags[SCHEDULE_TAG]}, due {due}"
        )

    def _process(self, work: processes.Work, export: str, words: str) -> None:
        system = self._system
        chance = Random(f"{self._seed}/{next(self._processes)}")
        chosen = Fate() if self._is_over else fate(chance, partial(system.organization.change, chance))
        must_succeed = chosen.is_survived and not (system.api.down or system.store.down or system.is_broken)
        has_died = system.execute(work, export, chosen)
        self._runs = system.find_runs()
        last = [run for run in self._runs if root_id(run) == export][-1]
        happened = [*system.api.happened, *system.store.happened]
        self._say(f"{words}: {'died' if has_died else last.status.value} {'; '.join(happened)}")
        if must_succeed and not has_died and last.status != dg.DagsterRunStatus.SUCCESS:
            raise Violated(f"{words} had to survive {happened} and is {last.status.value}")
        if has_died:
            self._looks = 0

    def _people_look(self) -> None:
        """Each failure is looked at once; after the end all are made good."""
        for run in self._failed():
            if run.run_id not in self._known_failures:
                self._known_failures.add(run.run_id)
                if self._is_over or self._random.random() < 0.8:
                    delay = timedelta(hours=self._random.random() * (1 if self._is_over else 20))
                    self._at(self._system.now + delay, "", partial(self._reexecute, run))

    def _failed(self) -> list[dg.DagsterRun]:
        """The last runs of exports, where they failed."""
        last = {root_id(run): run for run in self._runs}
        return [run for run in last.values() if run.status == dg.DagsterRunStatus.FAILURE]

    def _reexecute(self, run: dg.DagsterRun) -> None:
        """In the UI or in a terminal, as soon as Dagster can."""
        system = self._system
        words = f"a person re-executes {run.run_id[:8]}"
        if not system.is_watching:
            self._at(system.now + 3 * HOUR, "", partial(self._reexecute, run))
        elif run.tags[SCHEDULE_TAG] not in {one.code for one in system.schedules}:
            self._say(f"{words}: its schedule is gone")
        elif self._random.random() < 0.5:
            assert system.daemon
            system.daemon.reexecute(run)
            self._say(f"{words} in the UI")
        else:
            self._process(processes.resumed(run.run_id), root_id(run), f"{words} in a terminal")

    def _plan_looks(self) -> None:
        system, now = self._system, self._system.now
        if now < END:
            moments = [due[0] for one in system.schedules if (due := one.due(now, now + 200 * DAY))]
            moments += [one.created for one in system.schedules if one.created > now]
            self._plan_look(min(moments) + self._random.randint(5, 50) * timedelta(seconds=1))
        if any(not run.is_finished for run in self._runs):
            self._plan_look(now + LOOKS[min(self._looks, len(LOOKS) - 1)])
            self._looks += 1
        else:
            self._looks = 0

    def _plan_look(self, moment: datetime) -> None:
        if not any(planned <= moment for planned, *_ in self._plan):
            self._at(moment, "")

    def _all_has_ended(self) -> None:
        unfinished = [run.run_id for run in self._runs if not run.is_finished]
        if unfinished:
            raise Violated(f"runs {unfinished} have not ended")
        codes = {one.code for one in self._system.schedules}
        if left := [run.run_id for run in self._failed() if run.tags[SCHEDULE_TAG] in codes]:
            raise Violated(f"exports {left} could not be completed")
