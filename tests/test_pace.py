"""The pace of requests: evenly, never above the limit in any second, over threads and over processes."""

from __future__ import annotations

import fcntl
import heapq
import itertools
import logging
import math
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from api_rows import UNHURRIED
from hypothesis import given
from hypothesis import strategies as st

from m3ter_dagster.m3ter.connections import paced
from m3ter_dagster.m3ter.errors import Interrupted
from m3ter_dagster.m3ter.pace import Pace, SharedTimes, times_file

ROUNDING = 0.005
ON_TIME = itertools.repeat(0.0)


class FakeTime:
    """A clock that moves when somebody waits, by as much as is asked for and by the next of `late`."""

    def __init__(self, *late: float) -> None:
        self.now = 0.0
        self._late = iter(late)

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        if seconds:
            self.now += seconds + next(self._late, 0.0)


def take_turns(pace: Pace, number: int, wait: Callable[[float], None], clock: Callable[[], float]) -> list[float]:
    """The times of that many turns, taken as fast as the pace lets one."""
    times: list[float] = []
    for _ in range(number):
        pace.take_turn(wait)
        times.append(clock())
    return times


def wait(seconds: float) -> None:
    threading.Event().wait(seconds)


def give_up(seconds: float) -> None:
    if seconds:
        raise Interrupted


def test_the_first_turn_comes_at_once() -> None:
    waits: list[float] = []
    Pace(0.01).take_turn(waits.append)
    assert waits == [0]


@pytest.mark.parametrize("idle", [0.0, 60.0])
def test_turns_are_spaced_by_the_rate_and_a_little_more(idle: float) -> None:
    time = FakeTime()
    pace = Pace(40, clock=time)
    pace.take_turn(time.wait)
    time.now += idle
    times = take_turns(pace, 41, time.wait, time)
    assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([1.05 / 40] * 40)


def test_those_after_a_late_one_make_up_for_it() -> None:
    time = FakeTime(*[0.02] * 400)
    times = take_turns(Pace(40, clock=time), 401, time.wait, time)
    assert times[-1] - times[0] == pytest.approx(400 * 1.05 / 40, abs=0.1)


SECONDS = st.sampled_from([0.0, 0.001, 0.01, 0.03, 0.2, 1.0, 3.0])


@UNHURRIED
@given(
    per_second=st.sampled_from([0.4, 1, 2.5, 7, 10]),
    late=st.lists(SECONDS, max_size=40),
    requests=st.lists(st.tuples(SECONDS, SECONDS, SECONDS), min_size=12, max_size=40),
)
def test_no_more_than_the_limit_are_sent_in_any_second_however_late_one_is(
    per_second: float, late: list[float], requests: list[tuple[float, float, float]]
) -> None:
    time = FakeTime(*late)
    pace = Pace(per_second, clock=time)
    begun, written = [], []
    for pause, connecting, writing in requests:
        time.now += pause
        pace.take_turn(time.wait)
        time.now += connecting
        with pace.sending(time.wait):
            begun.append(time.now)
            time.now += writing
            written.append(time.now)
    most = math.ceil(per_second)
    assert all(later - earlier > most / per_second for earlier, later in zip(written, begun[most:], strict=False))


def test_many_threads_that_send_late_send_no_more_than_the_limit() -> None:
    """All took their turns in time, then made their connections, and are ready in the same moment."""
    time = FakeTime()
    pace = Pace(10, clock=time)
    sent: list[float] = []

    class Connection:
        is_closed = True

        def connect(self) -> None:
            time.now = max(time.now, 5.0)

        def endheaders(self) -> None:
            sent.append(time.now)

    connections = [paced(Connection, pace, time.wait)() for _ in range(30)]
    for _ in connections:
        pace.take_turn(time.wait)
    for connection in connections:
        connection.endheaders()
    assert sent[0] == 5.0
    assert [sum(start <= one <= start + 1 for one in sent) for start in (sent[0], sent[10], sent[20])] == [10] * 3


def test_who_gives_way_comes_after_all_who_do_not() -> None:
    time = FakeTime()
    pace = Pace(10, clock=time)
    pace.take_turn(time.wait)
    turns: list[str] = []
    cursors = ["first page", "second page", "third page"]

    def wait(seconds: float) -> None:
        if seconds and cursors:
            name = cursors.pop(0)
            pace.take_turn(time.wait)
            turns.append(name)
        else:
            time.wait(seconds)

    pace.take_turn(wait, gives_way=True)
    assert [*turns, time.now] == ["first page", "second page", "third page", pytest.approx(4 * 0.105)]


def test_nor_does_it_take_the_turn_of_one_who_is_late() -> None:
    time = FakeTime()
    pace = Pace(10, clock=time)
    pace.take_turn(time.wait)

    def wake_up_late(seconds: float) -> None:
        if seconds:
            time.now += 1
            with pytest.raises(Interrupted):
                pace.take_turn(give_up, gives_way=True)

    pace.take_turn(wake_up_late)
    assert time.now == 1


def test_many_threads_share_one_row_of_turns() -> None:
    pace = Pace(100)
    with ThreadPoolExecutor(8) as threads:
        times = sorted(
            one for turns in threads.map(lambda _: take_turns(pace, 5, wait, time.monotonic), range(8)) for one in turns
        )
    assert times[-1] - times[0] >= 39 / 100 - ROUNDING


def test_a_hold_moves_every_turn_and_is_not_shortened_by_another() -> None:
    pace = Pace(1000)
    started = time.monotonic()
    pace.hold(0.3)
    pace.hold(0.1)
    assert take_turns(pace, 1, wait, time.monotonic)[0] - started >= 0.3 - ROUNDING


def test_one_who_gives_up_waiting_leaves_the_row_to_the_others() -> None:
    pace = Pace(100)
    pace.take_turn(wait)
    with pytest.raises(Interrupted):
        pace.take_turn(give_up)
    assert len(take_turns(pace, 2, wait, time.monotonic)) == 2


# Shared by processes


class SimulatedProcesses:
    """Threads that stand for processes, of which one runs at a time; the clock moves when all wait."""

    def __init__(self) -> None:
        self.now = 0.0
        self._asleep: list[tuple[float, int, threading.Event]] = []
        self._numbers = itertools.count()
        self._all_wait = threading.Event()

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        if seconds > 0:
            woken = threading.Event()
            heapq.heappush(self._asleep, (self.now + seconds, next(self._numbers), woken))
            self._all_wait.set()
            woken.wait()

    def run(self, *processes: Callable[[], None]) -> None:
        with ThreadPoolExecutor(len(processes)) as threads:
            running = [self._started(threads, process) for process in processes]
            while self._asleep:
                self.now, _, woken = heapq.heappop(self._asleep)
                self._all_wait.clear()
                woken.set()
                self._all_wait.wait()
            for one in running:
                one.result()

    def _started(self, threads: ThreadPoolExecutor, process: Callable[[], None]) -> Future[None]:
        def run() -> None:
            try:
                self.wait(1e-6)
                process()
            finally:
                self._all_wait.set()

        self._all_wait.clear()
        started = threads.submit(run)
        self._all_wait.wait()
        return started


@dataclass
class Sent:
    process: int
    begun: float
    written: float


def shared_pace(time: SimulatedProcesses | FakeTime, file: Path, per_second: float = 10) -> Pace:
    """That of another process each time."""
    return Pace(per_second, clock=time, times=SharedTimes(file, clock=time))


def requests(
    time: SimulatedProcesses,
    pace: Pace,
    sent: list[Sent],
    process: int,
    *,
    late: Iterator[float] = ON_TIME,
    writing: Iterator[float] = ON_TIME,
    number: int = 40,
) -> Callable[[], None]:
    """A thread that sends requests, by the next of `late` too late wherever it can be late."""

    def wait(seconds: float) -> None:
        time.wait(seconds + next(late) if seconds else 0)

    def run() -> None:
        for _ in range(number):
            pace.take_turn(wait)
            time.wait(next(late))
            with pace.sending(wait):
                begun = time.now
                time.wait(next(writing))  # all others look for the lock meanwhile
                sent.append(Sent(process, begun, time.now))

    return run


@UNHURRIED
@given(
    rates=st.lists(st.sampled_from([1, 2.5, 7, 10]), min_size=2, max_size=4),
    delays=st.lists(SECONDS, min_size=1, max_size=40),
)
def test_processes_together_send_no_more_than_the_fastest_may_however_late_they_are(
    tmp_path_factory: pytest.TempPathFactory, rates: list[float], delays: list[float]
) -> None:
    time, sent, file = SimulatedProcesses(), list[Sent](), tmp_path_factory.mktemp("pace") / "times"

    def process(number: int, per_second: float) -> Callable[[], None]:
        late, writing = itertools.cycle(delays[number:] + delays[:number]), itertools.cycle((0.0, 0.001, 0.02))
        pace = shared_pace(time, file, per_second)
        return requests(time, pace, sent, number, late=late, writing=writing, number=15)

    time.run(*itertools.starmap(process, enumerate(rates)))
    most = math.ceil(max(rates))
    assert all(later.begun - one.written > 1 for one, later in zip(sent, sent[most:], strict=False))
    for number, rate in enumerate(rates):
        own = [one for one in sent if one.process == number]
        most = math.ceil(rate)
        assert all(later.begun - one.written > most / rate for one, later in zip(own, own[most:], strict=False))


@pytest.mark.parametrize("threads", [1, 3])
def test_processes_get_equal_shares_however_late_one_wakes_up(tmp_path: Path, threads: int) -> None:
    time, sent = SimulatedProcesses(), list[Sent]()
    paces = [shared_pace(time, tmp_path / "times") for _ in range(3)]
    time.run(
        *(
            requests(time, pace, sent, number, late=itertools.repeat(number * 0.008))
            for number, pace in enumerate(paces)
            for _ in range(threads)
        )
    )
    first = [one.process for one in sent[:90]]
    assert [first.count(number) for number in range(3)] == pytest.approx([30] * 3, abs=2)
    assert sent[90].begun - sent[0].begun == pytest.approx(90 * 0.105, rel=0.05)


def test_the_slower_of_two_processes_is_not_kept_waiting(tmp_path: Path) -> None:
    time, sent = SimulatedProcesses(), list[Sent]()
    paces = [shared_pace(time, tmp_path / "times", per_second) for per_second in (2, 10)]
    time.run(*(requests(time, pace, sent, number) for number, pace in enumerate(paces)))
    assert [one.process for one in sent[:80]].count(0) == pytest.approx(40, abs=1)


def test_a_hold_is_one_for_all_processes(tmp_path: Path) -> None:
    time = FakeTime()
    first, second = (shared_pace(time, tmp_path / "times") for _ in range(2))
    first.hold(3)
    second.take_turn(time.wait)
    assert time.now == pytest.approx(3)


def test_a_turn_that_was_reserved_before_a_hold_comes_after_it(tmp_path: Path) -> None:
    time = FakeTime()
    first, second = (shared_pace(time, tmp_path / "times") for _ in range(2))
    first.take_turn(time.wait)

    def wait(seconds: float) -> None:
        if seconds and not time.now:
            second.hold(3)
        time.wait(seconds)

    first.take_turn(wait)
    assert time.now == pytest.approx(3)


def test_those_who_wait_for_the_lock_can_be_interrupted(tmp_path: Path) -> None:
    pace, holder = Pace(10, times=SharedTimes(tmp_path / "times")), SharedTimes(tmp_path / "times")

    with holder.locked(), pytest.raises(Interrupted):
        pace.take_turn(give_up)
    pace.take_turn(give_up)


HOLDER = """
import sys, threading
from pathlib import Path
from m3ter_dagster.m3ter.pace import SharedTimes
with SharedTimes(Path(sys.argv[1])).locked() as times:
    times.next_turn = 1e9
    print("locked", flush=True)
    threading.Event().wait()
"""


def test_a_process_that_dies_with_the_lock_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Nor does what it had not yet written count."""
    file = tmp_path / "times"
    with subprocess.Popen([sys.executable, "-c", HOLDER, file], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"locked\n"
        waits: list[float] = []

        def wait(seconds: float) -> None:
            if seconds:
                holder.kill()
                holder.wait()
            waits.append(seconds)

        Pace(10, times=SharedTimes(file)).take_turn(wait)
    assert len(waits) == 2


def test_a_process_that_is_stopped_with_the_lock_does_not_keep_the_others_waiting_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    time, file = FakeTime(), tmp_path / "times"
    pace = Pace(10, clock=time, times=SharedTimes(file, clock=time))
    with SharedTimes(file).locked():
        times = take_turns(pace, 3, time.wait, time)
    assert times == pytest.approx([10, 10, 10.105], abs=0.01)
    assert [record.getMessage() for record in caplog.records] == [
        f"The pace of requests to m3ter is not shared with the other processes of this machine: {file}: another "
        "process has had its lock for 10 seconds; it may be stopped. Exports at the same time each ask "
        "M3TER_REQUESTS_PER_SECOND times a second."
    ]


@pytest.mark.parametrize(
    "content",
    [b"", b"short", struct.pack("3d", 1e9, 0, 0), struct.pack("3d", 0, math.nan, 0), struct.pack("3d", 0, 0, -1)],
)
def test_a_file_that_holds_no_times_of_now_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    time, file = FakeTime(), tmp_path / "times"
    file.write_bytes(content)
    pace = Pace(10, clock=time, times=SharedTimes(file, clock=time))
    times = take_turns(pace, 2, time.wait, time)
    assert times == pytest.approx([0, 0.105])
    assert struct.unpack("3d", file.read_bytes()) == pytest.approx((0.21, 0, 0))


def failing(words: str) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(1, words)

    return fail


@pytest.mark.parametrize("why", ["File exists", "No locks available", "No space left on device"])
def test_where_the_file_cannot_be_used_the_log_says_so_once_and_each_has_its_own_pace(
    tmp_path: Path, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    time, folder = FakeTime(), tmp_path / "folder"
    if why == "File exists":
        folder.touch()
    elif why == "No locks available":
        monkeypatch.setattr(fcntl, "flock", failing(why))
    shared = SharedTimes(folder / "times", clock=time)
    pace = Pace(10, clock=time, times=shared)
    pace.take_turn(time.wait)
    if why == "No space left on device":
        monkeypatch.setattr(os, "pwrite", failing(why))
    times = take_turns(pace, 3, time.wait, time)
    assert times == pytest.approx([0.105, 0.21, 0.315])
    monkeypatch.undo()
    with (
        pace.sending(time.wait),
        SharedTimes(tmp_path / "folder" / "times" if folder.is_dir() else None).locked(give_up),
    ):
        pass  # nor is the lock kept
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"The pace of requests to m3ter is not shared with the other processes of this machine: {folder / 'times'}: "
        f"{why}. Exports at the same time each ask M3TER_REQUESTS_PER_SECOND times a second."
    ]


ASKING = """
import sys, threading, time
from pathlib import Path
from m3ter_dagster.m3ter.pace import Pace, SharedTimes
pace, wait, seconds = Pace(50, times=SharedTimes(Path(sys.argv[1]))), threading.Event().wait, float(sys.argv[2])
sent, began = [], threading.Barrier(4)
def ask():
    began.wait()
    while time.monotonic() < until:
        pace.take_turn(wait)
        with pace.sending(wait):
            sent.append(time.monotonic())
sys.stdin.readline()
until = time.monotonic() + seconds
threads = [threading.Thread(target=ask) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(*sent)
"""


def test_four_processes_of_four_threads_ask_at_one_pace(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ASKING, tmp_path / "times", "2.5"]
    asking = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for one in asking:
        assert one.stdin
        one.stdin.write("go\n")
        one.stdin.flush()
    shares = [[float(moment) for moment in one.communicate()[0].split()] for one in asking]
    sent = sorted(itertools.chain(*shares))
    assert all(later - earlier > 1 for earlier, later in zip(sent, sent[50:], strict=False))
    assert len(sent) > 0.6 * 2.5 * 50 / 1.05
    assert all(len(share) == pytest.approx(len(sent) / 4, rel=0.4) for share in shares)


def test_those_share_a_file_who_ask_the_same_organization_at_the_same_address(tmp_path: Path) -> None:
    def file(base_url: str, org_id: str) -> Path:
        return times_file(tmp_path, base_url=base_url, org_id=org_id)

    one = file("https://api.m3ter.com", "org")
    assert one.parent == tmp_path
    assert one == file("https://api.m3ter.com/", "org")
    assert len({one, file("https://api.m3ter.com", "other"), file("https://m3ter.example.com", "org")}) == 3
