"""Alerts from their raising until a real Alertmanager has told a webhook: pager, outbox, sender.

The webhook is a process of its own that writes down what it is told. Alertmanager knows an alert
by its labels (the fingerprint) and an episode of it by startsAt; what is sent again with both is
the same to it. So no resend after a kill may differ in either.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from random import Random
from typing import Any

from bench.crashing import accepted
from bench.crashing.files import unsound
from bench.crashing.killing import Story, Words, eventually
from bench.harness import testbed
from dvfd.config import Config, parse
from dvfd.sinks.alert import Alert
from dvfd.sinks.alertmanager import Sender, open_session
from dvfd.sinks.pager import Pager
from dvfd.store import Store

CONFIG = """
[node]
name = "n1"
[alerting]
urls = ["{url}"]
"""

SPEED = 4.0
"""How fast the sender's boot clock runs: an alert that ended unheard is held for 30 s of it, in
which a busy Alertmanager must have begun to tell of it.
"""

HEARD = "heard.jsonl"
LAST = "last-words"


class Hurried:
    """A clock whose wall shows the time, and whose boot time hurries."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    def boot(self) -> float:
        """Seconds, *SPEED* of them in each."""
        return SPEED * time.monotonic()


class Office:
    """What raises and tells, over what lies in a directory."""

    def __init__(self, place: Path, config: Config, story: Story, words: Words) -> None:
        clock = Hurried()
        self.store = Store(place / "dvfd.db", metrics={}, clock=clock)
        self.store.start()
        self.pager = Pager(accepted.Noting(self.store, words), push=True)
        self.pager.load()
        if forgot := accepted.forgotten(story, self.pager.entries()):
            words.note(accepted.FORGOT + json.dumps(forgot))
        self.sender = Sender(
            self.pager,
            config,
            clock=clock,
            connect=lambda: accepted.noting(open_session(), words),
        )
        self.sender.start()


class Raised:
    """See the module."""

    name, text = "alerts", "alerts raised, told by a real Alertmanager, ended"

    def __init__(self, url: str) -> None:
        """*url* is Alertmanager's; see `listening`."""
        self._config = parse(CONFIG.format(url=url))

    def prepare(self, place: Path) -> None:
        """Nothing."""

    def live(self, place: Path, story: Story, words: Words) -> None:
        """Raise one after another; end some of them, also of earlier lives."""
        life = story.lives
        office = Office(place, self._config, story, words)
        chance = Random(life)
        words.ready()
        number = 0
        while True:
            number += 1
            alert = _alert(f"{life}.{number}", time.time())
            self._change(office, words, f"raise {alert.key} {alert.since!r}", alert)
            if chance.random() < 0.7:
                firing = sorted(office.pager.firing())
                key = chance.choice(firing)
                self._change(office, words, f"clear {key}", None, key)
            time.sleep(chance.uniform(0.0, 0.02))

    @staticmethod
    def _change(
        office: Office, words: Words, said: str, alert: Alert | None, key: str = ""
    ) -> None:
        words.begin(said)
        if alert is not None:
            office.pager.raise_alert(alert, {"key": alert.key})
        else:
            office.pager.clear_alert(key, time.time(), {"key": key})
        if office.store.flush(60):
            words.done(said)

    def hold(self, place: Path, story: Story) -> list[str]:
        """What the outbox has: every alert that was promised and not forgotten, with its start."""
        path = place / "dvfd.db"
        store = Store(path, metrics={}, clock=Hurried())
        store.start()
        kept = {entry["alert"]["key"]: entry for entry in store.outbox()}
        store.stop()
        found = unsound(path)
        begun = _starts(story.tried("raise "))
        ended = set(story.finished("clear "))
        for key, since in _starts(story.finished("raise ")).items():
            entry = kept.get(key)
            if entry is None:  # an ended alert goes when everybody has heard of it for 15 minutes
                told = key in set(story.tried("clear "))
                found += [] if told else [f"outbox: {key} is gone, and nobody ended it"]
            elif entry["alert"]["since"] != since:
                found.append(f"outbox: {key} began at {entry['alert']['since']}, not {since}")
            elif key in ended and entry["resolved_at"] is None:
                found.append(f"outbox: {key} fires again, and it was ended")
        strange = sorted(set(kept) - set(begun))
        return [*found, *([f"outbox: {strange} were never raised"] if strange else [])]

    def end(self, place: Path, story: Story) -> list[str]:
        """Let the sender tell what is left, and hold what the webhook heard against it."""
        said = os.open(place / LAST, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        office = Office(place, self._config, story, Words(said))
        quiet = eventually(lambda: all(e.told is e.wanted for e in office.pager.entries()))
        firing = office.pager.firing()
        wanted = set(_starts(story.finished("raise ")))
        ended = wanted - firing
        heard = eventually(lambda: not _unheard(place, wanted, ended), 60)
        office.sender.stop()
        office.store.stop()
        lost, failed = sorted(_unheard(place, wanted, ended)), undelivered(place)
        return [
            *([] if quiet else ["the sender did not come to an end within two minutes"]),
            *([] if heard else [f"webhook: not told of {lost}; Alertmanager gave up {failed}"]),
            *_misheard(place, story),
        ]


def _alert(key: str, since: float) -> Alert:
    return Alert(
        key=key, name="DvfdCriterionFailed", severity="critical", since=since, summary="s",
        description="d", labels={"criterion": key},
    )  # fmt: skip


def _starts(keys: list[str]) -> dict[str, float]:
    """When each alert began, of keys that say both."""
    pairs = (key.split() for key in keys)
    return {key: float(since) for key, since in pairs}


def told(place: Path) -> list[dict[str, Any]]:
    """Every alert of every notification, in order."""
    path = place.parent / HEARD
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _unheard(place: Path, wanted: set[str], ended: set[str]) -> set[str]:
    heard = told(place)
    fired = {each["labels"]["criterion"] for each in heard if each["status"] == "firing"}
    over = {each["labels"]["criterion"] for each in heard if each["status"] == "resolved"}
    return (wanted - fired) | (ended - over)


def _misheard(place: Path, story: Story) -> list[str]:
    """Each alert that was told has one fingerprint, one start, and was raised."""
    begun = _starts(story.tried("raise "))
    found = []
    names: dict[str, set[tuple[str, str]]] = {}
    for each in told(place):
        name = each["labels"]["criterion"]
        names.setdefault(name, set()).add((each["fingerprint"], each["startsAt"]))
        begins = datetime.fromisoformat(each["startsAt"]).timestamp()
        if name not in begun:
            found.append(f"webhook: {name} was never raised")
        elif abs(begins - begun[name]) > 0.001:
            found.append(f"webhook: {name} began at {begins}, not {begun[name]}")
    many = [name for name, marks in names.items() if len(marks) > 1]
    return [*found, *([f"webhook: {many} have more than one identity"] if many else [])]


@dataclass(frozen=True)
class Heard:
    """What a webhook was told in all lives, and why some of it twice."""

    alerts: int
    inside: int  # told again after a kill between Alertmanager's answer and the commit of it
    outside: tuple[str, ...]  # told again, and no kill fell there
    windows: accepted.Windows
    undelivered: int  # notifications that Alertmanager itself gave up, or sent and took for failed

    @property
    def again(self) -> int:
        """Notifications that said once more what was said."""
        return self.inside + len(self.outside)


def heard(place: Path, story: Story) -> Heard:
    """After the end."""
    for line in (place / LAST).read_text(encoding="utf-8").splitlines():
        story.hear(line)
    every = told(place)
    windows = accepted.windows(story)
    again = accepted.repeats(every)
    else_ = {mark: count for mark, count in again.items() if mark[0] not in windows.keys}
    outside = tuple(f"{key} {status}" for (key, status), n in else_.items() for _ in range(n))
    inside = sum(count for (key, _), count in again.items() if key in windows.keys)
    return Heard(len(every), inside, outside, windows, undelivered(place))


def undelivered(place: Path) -> int:
    """How often Alertmanager says that it could not deliver: its own at-least-once, not ours."""
    log = (place.parent / "alertmanager.log").read_text(encoding="utf-8")
    return log.count("Notify for alerts failed")


@contextlib.contextmanager
def listening(directory: Path) -> Iterator[str]:
    """A real Alertmanager's address; what it tells is written down in *directory*."""
    (directory / HEARD).touch()
    server = _Patient(("127.0.0.1", 0), _ear(directory / HEARD))
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            server.serve_forever()
        os._exit(0)
    server.socket.close()
    try:
        url = f"http://127.0.0.1:{server.server_port}/"
        with testbed.alertmanager(directory, url) as found:
            yield found.url
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


class _Patient(HTTPServer):
    """Alertmanager tells of each alert in a connection of its own, of hundreds at once: one that
    is not taken is tried again after seconds, and given up after ten.
    """

    request_queue_size = 4096


def _ear(path: Path) -> type[BaseHTTPRequestHandler]:
    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            lines = "".join(json.dumps(alert) + "\n" for alert in body["alerts"])
            with path.open("a", encoding="utf-8") as file:
                file.write(lines)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Ear
