"""Run the tests that reach a function against each mutant of it: a pytest plugin that forks.

The tests are collected once. Each mutant gets a child of that process, in which the code of one
function is replaced in place: a mutant costs its tests and a fork, no start of an interpreter.
"""

from __future__ import annotations
import __future__

import ast
import contextlib
import gc
import importlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

from bench.mutation import STATEMENT, Mutant, Place, unchanged

MEMORY = 4 << 30
"""Bytes that a child may hold: a mutant may make a list without an end."""

KILLER = "killer"
"""File in which a child says which test it is at."""

MARK = "__reached__"

TEMPORARY = "t"
"""Directory in which a child's tests have theirs."""

HANG = 60.0
"""Seconds that a child may idle beyond 20 times what its tests took, on a busy machine."""


class Outcome(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    TIMED_OUT = "timed out"


@dataclass(frozen=True, slots=True)
class Child:
    """A mutant that is being tried, and until when (monotonic)."""

    number: int
    room: Path
    until: float


@dataclass(frozen=True, slots=True)
class Reach:
    """What one test runs of the modules under check, and how long it takes."""

    seconds: float
    places: frozenset[Place]


class Mutants:
    """The plugin. `outcomes` are in the order of *mutants*."""

    def __init__(
        self,
        root: Path,
        mutants: Sequence[Mutant],
        tests: Mapping[str, frozenset[str]],
        *,
        jobs: int,
        tell: Callable[[str], None],
    ) -> None:
        """*tests* are the names of the files whose tests a module's mutants are tried with; *jobs*
        the mutants at a time; *tell* hears how it goes.
        """
        self._root = root
        self._mutants = mutants
        self._tests = tests
        self._jobs = jobs
        self._tell = tell
        self._functions: dict[Place, list[FunctionType]] = {}
        self._room = Path(tempfile.mkdtemp(prefix="mutants-"))
        self.outcomes: list[Outcome] = []
        self.broken: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        """An example that fails is enough; nobody needs the smallest."""
        from hypothesis import HealthCheck, Phase, settings  # pytest rewrites it before we may

        settings.register_profile(
            "mutants",
            database=None,
            deadline=None,
            derandomize=True,
            max_examples=100,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
        settings.load_profile("mutants")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The first failure is the end of a child."""
        if report.failed:
            raise Failed(f"{report.nodeid} {report.when}: {report.longreprtext[-2000:]}")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Find out what reaches what, then try every mutant."""
        try:
            for module in self._tests:  # tests may import late what they try
                importlib.import_module(".".join(Path(module).with_suffix("").parts))
            self._functions = self._known_functions()
            reach = self._reach(session.items)
            gc.freeze()  # the children share what is there
            if not self.broken:
                self._try_unchanged(session.items, reach)
            if not self.broken:
                self._try_all(session.items, reach)
        finally:
            shutil.rmtree(self._room, ignore_errors=True)
        return True

    # --- What reaches what ----------------------------------------------------------------------

    def _files(self) -> dict[str, str]:
        """The modules by the name of the file that their code has."""
        return {str(self._root / m.module): m.module for m in self._mutants}

    def _known_functions(self) -> dict[Place, list[FunctionType]]:
        files, known = self._files(), dict[Place, list[FunctionType]]()
        for thing in gc.get_objects():
            if isinstance(thing, FunctionType) and thing.__code__.co_filename in files:
                place = files[thing.__code__.co_filename], thing.__code__.co_qualname
                known.setdefault(place, []).append(thing)
        return known

    def _reach(self, items: Sequence[pytest.Item]) -> list[Reach]:
        """Run every test once, in this process: what they load and cache is there for all."""
        found = []
        with self._marked() as reached:
            for item, following in zip(items, [*items[1:], None], strict=True):
                reached.clear()
                began = time.process_time()
                try:
                    _run(item, following)
                except Failed as error:
                    self.broken.append(f"a test fails without a mutant: {error}")
                found.append(Reach(time.process_time() - began, frozenset(reached)))
        return found

    @contextlib.contextmanager
    def _marked(self) -> Iterator[set[Place]]:
        """Every function of the modules says that it was called: which have been."""
        reached: set[Place] = set()
        before: list[tuple[FunctionType, CodeType]] = []
        for module in self._tests:
            path = self._root / module
            space = vars(_module(path))
            space[MARK] = reached.add
            for same in unchanged(self._root, module):
                known = self._functions.get(same.place, ())
                before += [(function, function.__code__) for function in known]
                for function in known:
                    function.__code__ = _changed(same, path, space, mark=True).__code__
        try:
            yield reached
        finally:
            for function, code in before:
                function.__code__ = code

    # --- Mutants --------------------------------------------------------------------------------

    def _try_unchanged(self, items: Sequence[pytest.Item], reach: Sequence[Reach]) -> None:
        """The proof that a child fails for its mutant alone: with all of the modules replaced by
        what they are, no test fails.
        """
        same = [each for module in sorted(self._tests) for each in unchanged(self._root, module)]
        parts = min(self._jobs, len(items))

        def attempt(number: int) -> tuple[Callable[[Path], None], float]:
            mine = range(number, len(items), parts)
            seconds = sum(reach[n].seconds for n in mine)
            return lambda room: self._attempt(same, items, mine, room), seconds

        def take(number: int, room: Path, status: int | None) -> None:
            if status != 0:
                test = items[int((room / KILLER).read_text(encoding="ascii"))].nodeid
                self.broken.append(f"{test} fails with every module as it is")

        self._children(parts, attempt, take)

    def _try_all(self, items: Sequence[pytest.Item], reach: Sequence[Reach]) -> None:
        """Each with the tests that reach it: first what killed others of its function, then the
        quick ones.
        """
        kills: dict[Place, Counter[int]] = defaultdict(Counter)
        results: dict[int, Outcome] = {}

        def attempt(number: int) -> tuple[Callable[[Path], None], float]:
            mutant = self._mutants[number]
            mine = self._tests[mutant.module]
            reaching = [
                n
                for n, each in enumerate(reach)
                if _reaches(each, mutant) and items[n].path.name in mine
            ]
            killed = kills[mutant.place]
            reaching.sort(key=lambda n: (-killed[n], reach[n].seconds))
            seconds = sum(reach[n].seconds for n in reaching)
            return lambda room: self._attempt([mutant], items, reaching, room), seconds

        def take(number: int, room: Path, status: int | None) -> None:
            results[number] = _outcome(status)
            if results[number] is Outcome.SURVIVED:
                self._tell(f"survives: {self._mutants[number]}")
            if (room / KILLER).exists():
                killer = int((room / KILLER).read_text(encoding="ascii"))
                kills[self._mutants[number].place][killer] += 1
            if len(results) % 100 == 0:
                survived = sum(o is Outcome.SURVIVED for o in results.values())
                self._tell(f"{len(results)} of {len(self._mutants)}, {survived} survived")

        self._children(len(self._mutants), attempt, take)
        self.outcomes = [results[number] for number in range(len(self._mutants))]

    def _attempt(
        self,
        mutants: Sequence[Mutant],
        items: Sequence[pytest.Item],
        numbers: Sequence[int],
        room: Path,
    ) -> None:
        (room / TEMPORARY).mkdir()
        for mutant in mutants:
            self._apply(mutant)
        for number, following in zip(numbers, [*numbers[1:], None], strict=True):
            (room / KILLER).write_text(str(number), encoding="ascii")
            factory: Any = items[number].config
            factory._tmp_path_factory._basetemp = room / TEMPORARY
            _run(items[number], None if following is None else items[following])
        (room / KILLER).unlink(missing_ok=True)

    def _apply(self, mutant: Mutant) -> None:
        path = self._root / mutant.module
        space = vars(_module(path))
        if mutant.function == STATEMENT:
            _set_constant(mutant, path, space)
            return
        changed = _changed(mutant, path, space)
        for function in self._functions.get(mutant.place, ()):  # a Protocol's are nobody's
            function.__code__ = changed.__code__
            function.__defaults__ = changed.__defaults__
            function.__kwdefaults__ = changed.__kwdefaults__

    # --- Children -------------------------------------------------------------------------------

    def _children(
        self,
        count: int,
        attempt: Callable[[int], tuple[Callable[[Path], None], float]],
        take: Callable[[int, Path, int | None], None],
    ) -> None:
        """Run the tasks 0 to *count* in children, some at a time; *take* the number, the room, and
        the status, None if it ran for too long.
        """
        running: dict[int, Child] = {}
        waiting = iter(range(count))
        left = count
        while left:
            for number in islice(waiting, self._jobs - len(running)):
                task, seconds = attempt(number)
                room = self._room / str(number)
                room.mkdir()
                pid = _fork(task, room, seconds)
                running[pid] = Child(number, room, time.monotonic() + HANG + 20 * seconds)
            for pid, status in _ended(running):
                child = running.pop(pid)
                take(child.number, child.room, status)
                shutil.rmtree(child.room, ignore_errors=True)
                left -= 1


def _reaches(reach: Reach, mutant: Mutant) -> bool:
    if mutant.function == STATEMENT:
        return True
    return mutant.place in reach.places


def _fork(task: Callable[[Path], None], room: Path, seconds: float) -> int:
    """A child that ends with 0 if *task* comes to its end."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()
        tempfile.tempdir = str(room)
        os.environ["TMPDIR"] = os.environ["PYTEST_DEBUG_TEMPROOT"] = str(room)
        _silence(room)
        cpu = int(3 + 20 * seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        task(room)
        status = 0
    finally:  # whatever a mutant does, its child ends here
        os._exit(status)


def _silence(room: Path) -> None:
    out = os.open(room / "output", os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(out, stream)


def _ended(running: Mapping[int, Child]) -> Iterator[tuple[int, int | None]]:
    """The children that ended, and how; waits a moment if none did."""
    ended = []
    for pid, child in running.items():
        late = time.monotonic() > child.until
        if late:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        done, status = os.waitpid(pid, 0 if late else os.WNOHANG)
        if done:
            ended.append((pid, None if late else status))
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what a test left running
    if not ended:
        time.sleep(0.003)
    yield from ended


def _outcome(status: int | None) -> Outcome:
    if status == 0:
        return Outcome.SURVIVED
    over = status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU)
    return Outcome.TIMED_OUT if over else Outcome.KILLED


class Failed(Exception):
    """A test did not pass; the message is its name and its error."""


def _run(item: pytest.Item, following: pytest.Item | None) -> None:
    """Run one test. Raises Failed, by the plugin's hook."""
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


# --- Code in place of code --------------------------------------------------------------------


def _module(path: Path) -> ModuleType:
    return next(m for m in tuple(sys.modules.values()) if getattr(m, "__file__", "") == str(path))


def _changed(
    mutant: Mutant, path: Path, space: Mapping[str, Any], *, mark: bool = False
) -> FunctionType:
    """The changed function: its code is for the real one, its globals are not. With *mark* it
    tells MARK, a global of its module, that it was called.
    """
    owner, _, name = mutant.function.rpartition(".")
    text = f"class {owner}:\n{mutant.text}" if owner else mutant.text
    room = dict(space)
    tree = ast.parse(text)
    if mark:
        _mark(tree, mutant.place)
    _execute(tree, path, room)
    function = vars(room[owner])[name] if owner else room[name]
    assert isinstance(function, FunctionType)
    return function


def _set_constant(mutant: Mutant, path: Path, space: dict[str, Any]) -> None:
    """Run the changed statement in its module, and hand the new value to all who hold the old."""
    before = dict(space)
    _execute(mutant.text, path, space)
    for name in mutant.names:
        for other in tuple(sys.modules.values()):
            if getattr(other, "__dict__", {}).get(name) is before[name]:
                setattr(other, name, space[name])


def _mark(tree: ast.Module, place: Place) -> None:
    """Let the one function in *tree* begin with telling MARK its place."""
    function = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    call = ast.parse(f"{MARK}({place!r})").body
    function.body[:0] = call
    ast.fix_missing_locations(tree)


def _execute(code: str | ast.Module, path: Path, space: dict[str, Any]) -> None:
    flags = __future__.annotations.compiler_flag
    exec(compile(code, str(path), "exec", flags, dont_inherit=True), space)
