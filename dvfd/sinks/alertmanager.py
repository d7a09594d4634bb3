"""Send what the pager holds to every Alertmanager, at once, again and again, and once more when
it is over. Decides nothing; the only importer of requests on this side of the daemon.

What a receiver accepts it may forget (a restart), so the whole firing set is sent each resend.
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from dvfd.config import credential
from dvfd.masking import masked
from dvfd.sinks.alert import document, trial_alert
from dvfd.sinks.arrivals import seen
from dvfd.sinks.pager import Entry, Pager, Told
from dvfd.state import Delivery, Peer

if TYPE_CHECKING:
    from dvfd.config import Alerting, Config
    from dvfd.model import Clock

log = structlog.get_logger(__name__)

BACKOFF = 30.0
"""Longest seconds between two attempts while no Alertmanager answers."""

RESOLVED_FOR = 900.0
"""Seconds for which an ended alert is told again, as Prometheus does: receivers restart too."""

GIVE_UP = 86_400.0
"""Seconds after which an ended alert is dropped although nobody took it: a day-old "resolved"
helps nobody, and the set stays bounded."""

GROUP_WAIT = 30.0
"""Alertmanager's default group_wait: an alert that ended unheard is told as firing for so long."""

SETTLING = 1.0
"""Seconds that an end waits for the disk before it is told: a commit takes tens of milliseconds,
and a disk that takes nothing must not keep people from hearing that it is over."""

IDLE = 2.0
"""Longest sleep: the loop shows progress at least this often."""

CONTENT = frozenset({400, 413, 422})
"""Answers that blame the alerts in the batch. Other 4xx blame the address or the password: there
the alerts wait until somebody mends the configuration."""


Post = Callable[..., Any]
"""requests.Session.post, or a fake: the answer has status_code and text; raises OSError (which
requests.RequestException is) if there is none."""


class Receiver:
    """One Alertmanager: where it is, how it answers, what it refused. Used by one thread."""

    def __init__(self, url: str, settings: Alerting) -> None:
        self.url = f"{url.rstrip('/')}/api/v2/alerts"
        self.name = masked(url)
        self.failures = 0
        self.last_success: float | None = None
        self.error = ""
        self.outcomes: Counter[str] = Counter()
        self._settings = settings
        self._refused: set[tuple[str, int]] = set()

    def send(
        self, send: Post, batch: Sequence[tuple[Entry, dict[str, Any]]], now: float
    ) -> list[Entry]:
        """POST *batch*, halved until a bad alert stands alone. The entries that were accepted."""
        batch = [(entry, body) for entry, body in batch if not self.has_refused(entry)]
        if not batch:
            return []
        status, detail = post(send, self.url, [body for _, body in batch], self._settings)
        if 200 <= status < 300:
            self._succeeded(len(batch), now)
            return [entry for entry, _ in batch]
        if status not in CONTENT:
            self._failed(len(batch), detail)
            return []
        if len(batch) == 1:
            self._refuse(batch[0][0], detail)
            return []
        middle = len(batch) // 2
        return self.send(send, batch[:middle], now) + self.send(send, batch[middle:], now)

    def _succeeded(self, alerts: int, now: float) -> None:
        if self.error:
            log.info("alertmanager accepts again", url=self.name)
        self.failures, self.error, self.last_success = 0, "", now
        self.outcomes["accepted"] += alerts

    def _failed(self, alerts: int, detail: str) -> None:
        if not self.error:
            log.warning("alertmanager does not accept", url=self.name, error=detail)
        self.failures += 1
        self.error = detail
        self.outcomes["failed"] += alerts

    def _refuse(self, entry: Entry, detail: str) -> None:
        """Not sent here again, unless it starts or ends anew or the daemon restarts."""
        log.error("alert refused", url=self.name, alert=entry.alert.key, error=detail)
        self._refused.add((entry.alert.key, entry.revision))
        self.outcomes["refused"] += 1
        self.failures = 0
        self.error = f"refused {entry.alert.key}: {detail}"

    def has_refused(self, entry: Entry) -> bool:
        """Whether *entry* came back as bad since it last started or ended."""
        return (entry.alert.key, entry.revision) in self._refused

    def forget(self, keys: frozenset[str]) -> None:
        """Keep refusals for *keys* only."""
        self._refused = {mark for mark in self._refused if mark[0] in keys}


class Sender:
    """The thread that tells. Nothing is lost while it fails: the pager keeps the set."""

    def __init__(
        self,
        pager: Pager,
        config: Config,
        *,
        clock: Clock,
        connect: Callable[[], Post] | None = None,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._pager = pager
        self._config = config
        self._clock = clock
        self._connect = connect or open_session
        self._jitter = jitter
        self._post: Post | None = None
        settings = config.alerting
        self._receivers = [Receiver(url, settings) for url in settings.urls] if push(config) else []
        self._held: dict[str, float] = {}
        self._begun = False
        self._resend = settings.resend
        self._full_at = self._next_at = 0.0
        self._failures = 0
        self._beat = clock.boot()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sender", daemon=True)
        pager.listen(lambda _entry: self._wake.set())

    def start(self) -> None:
        """Tell at once what an earlier daemon left. Without a receiver there is no thread."""
        self._beat = self._clock.boot()
        if self._receivers:
            self._thread.start()

    def stop(self) -> None:
        """End after the request in progress."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(2 * self._config.alerting.timeout)

    def beat(self) -> float:
        """Boot time of the last progress; now, if there is nobody to tell."""
        return self._beat if self._receivers else self._clock.boot()

    def health(self) -> Delivery:
        """Per receiver the last success and error, what waits, and how posts ended."""
        outcomes: Counter[str] = Counter({"accepted": 0, "failed": 0, "refused": 0})
        for receiver in self._receivers:
            outcomes.update(receiver.outcomes)
        return Delivery(
            peers=tuple(
                Peer(url=r.name, last_success=r.last_success, error=r.error)
                for r in self._receivers
            ),
            mode=self._config.alerting.mode,
            waiting=sum(_news(entry) for entry in self._pager.entries()),
            outcomes=outcomes,
        )

    def send_test(
        self, now: float, trial: str = "", *, over: bool = False
    ) -> list[tuple[str, bool, str]]:
        """Send a test alert past the queue, from any thread; see the function of this name."""
        return send_test(self._config, now, trial, over=over, connect=self._connect)

    def seen(self, trial: str) -> list[dict[str, Any]]:
        """What each Alertmanager says of the test alert *trial*, from any thread."""
        return seen(self._config.alerting, trial, login)

    def round(self) -> None:
        """Send what is due now, and plan the next time."""
        now, boot = self._clock.now(), self._clock.boot()
        self._hold_again(boot)
        full = boot >= self._full_at
        free = [e for e in self._pager.entries() if self._held.get(e.alert.key, 0.0) <= boot]
        due = [e for e in free if full or _news(e)]
        ends = [e for e in due if _ends(e)]
        accepted = self._tell([e for e in due if not _ends(e)], now, boot)
        if ends:
            # Killed before the end is kept, we would tell the beginning again: after an end,
            # Alertmanager takes that as another alert. A beginning waits for nothing.
            self._pager.settle(SETTLING)
            accepted += self._tell(ends, now, boot)
        open_ends = len(accepted) < len(due) and any(r.failures for r in self._receivers)
        self._plan(full=full, failed=open_ends, boot=boot)
        self._sweep(now, boot)

    def wait(self) -> float:
        """Seconds until the next round is due, if nothing wakes it before."""
        return max(0.0, min((self._next_at, *self._held.values())) - self._clock.boot())

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._beat = self._clock.boot()
            if self._wake.is_set() or self.wait() <= 0:
                self._wake.clear()
                self.round()
            self._wake.wait(min(IDLE, max(0.05, self.wait())))

    def _tell(self, due: Sequence[Entry], now: float, boot: float) -> tuple[Entry, ...]:
        batch = [(entry, _document(entry, self._config, now)) for entry in due]
        accepted: dict[str, Entry] = {}
        # The ones that answered last time come first: a dead one costs a timeout.
        for receiver in sorted(self._receivers, key=lambda r: r.failures):
            self._beat = self._clock.boot()
            for entry in receiver.send(self._opened(), batch, now):
                accepted[entry.alert.key] = entry
        self._pager.told(accepted.values())
        first = {key for key, entry in accepted.items() if entry.told is Told.NOTHING}
        for entry in self._pager.entries():  # one may have ended while we told of it
            if entry.alert.key in first and entry.unheard and _ends(entry):
                self._held[entry.alert.key] = boot + GROUP_WAIT
        return tuple(accepted.values())

    def _hold_again(self, boot: float) -> None:
        """In the first round: an earlier daemon may have told of what ended unheard just now."""
        if not self._begun:
            self._begun = True
            left = (e for e in self._pager.entries() if e.unheard and _ends(e))
            self._held = {e.alert.key: boot + GROUP_WAIT for e in left}

    def _opened(self) -> Post:
        if self._post is None:
            self._post = self._connect()
        return self._post

    def _plan(self, *, full: bool, failed: bool, boot: float) -> None:
        self._failures = self._failures + 1 if failed else 0
        pause = min(BACKOFF, 2.0 ** min(self._failures, 10) / 2) if failed else self._resend
        after = boot + pause * self._jitter(0.8, 1.0)
        if full:
            self._full_at = after
        self._next_at = min(after, self._full_at) if failed else self._full_at

    def _sweep(self, now: float, boot: float) -> None:
        for entry in self._pager.entries():
            if entry.resolved_at is not None and self._is_over(entry, now - entry.resolved_at):
                self._pager.forget(entry)
        keys = frozenset(entry.alert.key for entry in self._pager.entries())
        self._held = {k: until for k, until in self._held.items() if k in keys and until > boot}
        for receiver in self._receivers:
            receiver.forget(keys)

    def _is_over(self, entry: Entry, age: float) -> bool:
        told = entry.told is Told.RESOLVED and age > RESOLVED_FOR
        return told or age > GIVE_UP or all(r.has_refused(entry) for r in self._receivers)


def push(config: Config) -> bool:
    """Whether dvfd pushes its own verdicts: somewhere to, and not left to Prometheus' rules."""
    return bool(config.alerting.urls) and config.alerting.mode != "rules"


def post(
    send: Post, url: str, alerts: Sequence[dict[str, Any]], settings: Alerting
) -> tuple[int, str]:
    """POST *alerts*. The status, 0 if there was no answer, and what went wrong in words."""
    try:
        response = send(
            url,
            data=json.dumps(alerts),
            # A kept connection that the other side closed would cost the next alert a retry.
            headers={"Content-Type": "application/json", "Connection": "close"},
            auth=login(settings),
            timeout=settings.timeout,
            # A POST that is redirected becomes a GET, whose 200 would look like success.
            allow_redirects=False,
        )
    except OSError as error:  # requests.RequestException, or a password file that is not readable
        return 0, _plain(error)
    if 200 <= response.status_code < 300:
        return response.status_code, ""
    said = masked(response.text[:300].strip())  # a proxy may repeat the address that it was asked
    return response.status_code, f"HTTP {response.status_code}: {said}"


def send_test(
    config: Config,
    now: float,
    trial: str = "",
    *,
    over: bool = False,
    connect: Callable[[], Post] | None = None,
) -> list[tuple[str, bool, str]]:
    """Send a test alert to every Alertmanager, or that it is *over*: (url, accepted, what went
    wrong) for each. *trial* is its own label.
    """
    ended = now if over else None
    body = [document(trial_alert(now, trial), config, now=now, resolved_at=ended)]
    send = (connect or open_session)()
    outcomes = []
    for url in config.alerting.urls:
        receiver = Receiver(url, config.alerting)
        status, detail = post(send, receiver.url, body, config.alerting)
        outcomes.append((receiver.name, 200 <= status < 300, detail or f"HTTP {status}"))
    return outcomes


def open_session() -> Post:
    """The `post` of a requests session; like Prometheus it ignores proxies and .netrc."""
    import requests  # noqa: PLC0415  # 6 MiB that a daemon without an Alertmanager does not need

    session = requests.Session()
    session.trust_env = False
    return session.post


def login(settings: Alerting) -> tuple[str, str] | None:
    """A name with its password, read again for each request: passwords change. Raises OSError."""
    name = settings.password_credential
    path = credential(name) if name else settings.password_file
    if not settings.username or path is None:
        return None
    return settings.username, path.read_text(encoding="utf-8").rstrip("\n")


def _news(entry: Entry) -> bool:
    return entry.told is not entry.wanted


def _ends(entry: Entry) -> bool:
    return _news(entry) and entry.wanted is Told.RESOLVED


def _document(entry: Entry, config: Config, now: float) -> dict[str, Any]:
    resolved_at = entry.resolved_at if entry.wanted is Told.RESOLVED else None
    return document(entry.alert, config, now=now, resolved_at=resolved_at)


def _plain(error: OSError) -> str:
    """The innermost reason: requests wraps a refused connection four times."""
    cause: BaseException = error
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
    return masked(f"{type(cause).__name__}: {cause}")[:300]
