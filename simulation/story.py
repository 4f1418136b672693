"""One seed's story: due times, edits, outages, deaths and changes over some days, and what people do about failures."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from random import Random

import dagster as dg

from m3ter_dagster.history.log import DUE_TAG, SCHEDULE_TAG, root_id
from simulation import edits, faults, processes
from simulation.due_times import GRACE
from simulation.fates import NOTHING, fate
from simulation.invariants import Violated
from simulation.system import BEGIN, System

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
LOOKS = (2 * MINUTE, 12 * MINUTE, 3 * MINUTE, 3 * MINUTE, 40 * MINUTE, 5 * HOUR, 9 * HOUR, 10 * HOUR, 8 * HOUR)
"""How long after one look the next one is while runs have not ended."""
MOST_LOOKS = 30
"""In one step."""
DAYS_PER_EDIT, DAYS_PER_OUTAGE = 6, 12
QUIET = 0.1
"""How likely nothing happens but to the runs: the code is loaded once only."""

RESTARTED = 0.05
"""How likely the code server is restarted during a look."""

Tell = Callable[[str], None]
Happening = Callable[[], None]


class Story:
    """Everything that chance decides comes from the seed: the same happens again, as far as threads allow."""

    def __init__(self, seed: int, days: int, system: System, tell: Tell) -> None:
        self._seed = seed
        self._random = Random(seed)
        self._end = BEGIN + days * DAY
        self._days = days
        self._system = system
        self._tell = tell
        self._plan: list[tuple[datetime, int, str, Happening]] = []
        self._numbers = itertools.count()
        self._processes, self._restarts = itertools.count(1), itertools.count(1)
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

    def _at(self, moment: datetime, words: str = "", happen: Happening = lambda: None) -> None:
        heapq.heappush(self._plan, (moment, next(self._numbers), words, happen))

    # What is planned

    def _begin(self) -> None:
        system = self._system
        system.write_exports(edits.first_schedules(self._random, BEGIN))
        self._at(BEGIN, "the daemon starts", system.start_daemon)
        self._at(self._end, "everything is repaired", self._repair)
        if self._random.random() < QUIET:
            return
        self._standstill()
        self._switches()
        for _ in range(-(-self._days // DAYS_PER_OUTAGE)):
            self._outage("the daemon", system.stop_daemon, system.start_daemon, longest=60)
            self._outage(
                "the webhook", partial(self._webhook, is_down=True), partial(self._webhook, is_down=False), longest=90
            )
            for name, gate, effect in (
                ("m3ter", system.api, faults.unavailable),
                ("the store", system.store, faults.slow_down),
            ):
                self._outage(name, partial(_let_happen, gate, effect), partial(_let_happen, gate, None), longest=30)
        for _ in range(-(-self._days // DAYS_PER_EDIT)):
            moment = self._sometime()
            # A daemon that looks each minute knows until when the old file was right.
            self._at(moment)
            self._at(moment, "", self._edit)

    def _sometime(self) -> datetime:
        return BEGIN + self._random.random() * (self._end - BEGIN - HOUR)

    def _outage(self, what: str, stop: Happening, start: Happening, *, longest: int) -> None:
        begin = self._sometime()
        self._at(begin, f"{what} goes down", stop)
        self._at(begin + self._random.random() * longest * HOUR, f"{what} is back", start)

    def _standstill(self) -> None:
        """Of the daemon, for some minutes when an export is due."""
        system, random = self._system, self._random
        dues = [due for one in system.schedules for due in one.due(BEGIN + HOUR, self._end - HOUR)]
        begin = random.choice(dues) - random.randint(1, 3) * MINUTE
        self._at(begin, "the daemon stands still", system.stop_daemon)
        self._at(begin + random.randint(2, 14) * MINUTE, "the daemon goes on", system.start_daemon)

    def _switches(self) -> None:
        """A schedule is switched off for some days."""
        random, code = self._random, self._random.choice(self._system.schedules).code
        begin = self._sometime()
        self._at(begin)
        self._at(begin, "", partial(self._switch, code, on=False))
        self._at(begin + random.random() * 4 * DAY, "", partial(self._switch, code, on=True))

    def _switch(self, code: str, *, on: bool) -> None:
        if not self._is_over and self._system.switch(code, on=on):
            self._say(f"schedule {code} is switched {'on' if on else 'off'}")

    def _webhook(self, *, is_down: bool) -> None:
        self._system.webhook.is_down = is_down

    def _repair(self) -> None:
        self._is_over = True
        self._known_failures.clear()
        self._system.repair()

    # exports.yaml

    def _edit(self) -> None:
        random, system = self._random, self._system
        if system.is_broken or self._is_over:
            return
        kind = random.choice(edits.KINDS)
        if kind == "broken":
            if not system.is_loaded:
                return
            self._say("exports.yaml is broken")
            system.write_exports(system.schedules, broken=True)
            self._at(system.now + random.random() * 50 * HOUR, "", self._mend)
            return
        schedules, words = edits.edited(random, kind, system.schedules, next(self._numbers))
        self._say(words)
        system.write_exports(schedules)
        if kind == "very short":
            self._at(system.now + 40 * HOUR)
            self._at(system.now + 40 * HOUR, "", self._slow_down)

    def _mend(self) -> None:
        if self._system.is_broken:
            self._say("exports.yaml is mended")
            self._system.write_exports(self._system.schedules)

    def _slow_down(self) -> None:
        if self._system.is_broken:
            self._at(self._system.now + 5 * HOUR, "", self._slow_down)
            return
        self._say("no schedule is due every few hours any more")
        self._system.write_exports(edits.slowed(self._random, self._system.schedules))

    # What follows

    def _settle(self) -> None:
        """Look and execute until nothing happens any more; then plan what comes of it."""
        system = self._system
        for _ in range(self._random.randint(0, 5)):
            system.organization.change(self._random)
        for _ in range(MOST_LOOKS):
            launched, before = system.look(is_restarted=self._is_restarted()), self._runs
            self._runs = system.find_runs()
            for run_id in launched:
                self._execute(run_id)
            # A sensor's tick ends with the first failure that is retried.
            if self._runs == before and not system.untold(self._runs):
                break
            system.clock.shift(31)
        system.check()
        self._people_look()
        self._plan_looks()

    def _is_restarted(self) -> bool:
        """Whether the code server is, during the next look."""
        chance = Random(f"{self._seed}/restart {next(self._restarts)}")
        if self._is_over or not self._system.daemon or chance.random() >= RESTARTED:
            return False
        self._say("the code server is restarted")
        return True

    def _execute(self, run_id: str) -> None:
        run = self._system.instance.get_run_by_id(run_id)
        assert run
        words = f"run {run_id[:8]} of {run.tags[SCHEDULE_TAG]}, due {run.tags[DUE_TAG][:16]}"
        self._process(processes.executed(run_id), root_id(run), words)

    def _process(self, work: processes.Work, export: str, words: str) -> None:
        """A process of an export, and its fate."""
        system, chance = self._system, Random(f"{self._seed}/{next(self._processes)}")
        chosen = NOTHING if self._is_over else fate(chance, partial(system.organization.change, chance))
        must_succeed = chosen.is_survived and not (system.api.down or system.store.down)
        has_died = system.execute(work, export, chosen)
        self._runs = system.find_runs()
        run = [run for run in self._runs if root_id(run) == export][-1]
        status = run.status
        if has_died and not run.is_finished:
            system.invariants.died(run.run_id, system.now)
        at_event = [f"dies at event {chosen.dies_at_event}"] if has_died and chosen.dies_at_event else []
        happened = "; ".join([*system.api.happened, *system.store.happened, *at_event])
        self._say(f"{words}: {'died' if has_died else status.value} {happened}")
        if must_succeed and not has_died and status != dg.DagsterRunStatus.SUCCESS:
            raise Violated(
                f"{words} had to survive {happened or 'nothing'} and is {status.value}: {system.why(run.run_id)}"
            )
        if chosen.is_survived and run.remote_job_origin and status != dg.DagsterRunStatus.SUCCESS:
            system.invariants.ended_by_what_passes(run.run_id)
        if has_died:
            self._looks = 0

    def _people_look(self) -> None:
        """At each failure once; after the end all are made good."""
        for run in self._failed():
            if run.run_id not in self._known_failures:
                self._known_failures.add(run.run_id)
                if self._is_over or self._random.random() < 0.8:
                    delay = self._random.random() * (1 if self._is_over else 20) * HOUR
                    self._at(self._system.now + delay, "", partial(self._reexecute, run))

    def _failed(self) -> list[dg.DagsterRun]:
        """The last runs of exports, where they failed."""
        last = {root_id(run): run for run in self._runs}
        return [run for run in last.values() if run.status == dg.DagsterRunStatus.FAILURE]

    def _reexecute(self, run: dg.DagsterRun) -> None:
        """In the UI, or in a terminal, where the schedule may be gone. It waits for a daemon."""
        system, words = self._system, f"a person re-executes {run.run_id[:8]}"
        is_there = run.tags[SCHEDULE_TAG] in {one.code for one in system.schedules}
        if run not in self._failed():
            return
        if not system.daemon:
            self._at(system.now + 3 * HOUR, "", partial(self._reexecute, run))
        elif is_there and self._random.random() < 0.5:
            self._say(f"{words} in the UI")
            system.daemon.reexecute(run)
        else:
            self._process(processes.resumed(run.run_id), root_id(run), f"{words} in a terminal")

    def _plan_looks(self) -> None:
        system, now = self._system, self._system.now
        if now < self._end:
            on = [one for one in system.schedules if one.code not in system.off]
            moments = [due[0] for one in on if (due := one.due(now, now + 9 * DAY))]
            moments += [one.created for one in on if one.created > now]
            self._plan_look(min(moments, default=now + DAY) + self._random.randint(5, 50) * timedelta(seconds=1))
        if missing := system.invariants.missing(self._runs):
            # After five minutes the sensor launches what the schedule has not.
            self._plan_look(max(now, max(due for _, due in missing) + GRACE))
        if any(not run.is_finished for run in self._runs):
            self._plan_look(now + LOOKS[min(self._looks, len(LOOKS) - 1)])
            self._looks += 1
        else:
            self._looks = 0

    def _plan_look(self, moment: datetime) -> None:
        if not any(planned <= moment for planned, *_ in self._plan):
            self._at(moment)

    def _all_has_ended(self) -> None:
        if unfinished := [run.run_id for run in self._runs if not run.is_finished]:
            raise Violated(f"runs {unfinished} have not ended")
        if left := [run.run_id for run in self._failed()]:
            raise Violated(f"exports {left} could not be completed")


def _let_happen(gate: faults.Gate, effect: faults.Effect | None) -> None:
    """To all requests."""
    gate.down = effect
