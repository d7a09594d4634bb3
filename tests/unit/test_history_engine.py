"""One engine is asked as the configuration says, in pieces that it can answer, with its secrets."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from dvfd.config import History
from dvfd.errors import DvfdError, HistoryError
from dvfd.history.engine import Engine
from dvfd.remote import Answer


class Asked:
    """What an engine was asked; each question is answered with its own grid of times."""

    def __init__(self, ahead=0.0):
        self.urls, self.forms, self.accesses, self.questions = [], [], [], []
        self._ahead = ahead

    def __call__(self, url, access, *, within, most, form):
        self.urls.append(url)
        self.forms.append(form)
        self.accesses.append(access)
        question = {k: v[0] for k, v in parse_qs(form or urlsplit(url).query).items()}
        self.questions.append(question)
        now = time.time()
        return Answer(200, json.dumps(self.answer(question, now)).encode(), now, now + 0.1)

    def answer(self, question, now):
        if question["query"] == "time()":
            data = {"resultType": "scalar", "result": [now, str(now + self._ahead)]}
        elif "step" in question:
            start, end, step = (float(question[key]) for key in ("start", "end", "step"))
            times = [start + n * step for n in range(round((end - start) / step) + 1)]
            rows = [{"metric": {"instance": "n1"}, "values": [[at, "1"] for at in times]}]
            data = {"resultType": "matrix", "result": rows}
        else:
            rows = [{"metric": {}, "value": [float(question["time"]), "1"]}]
            data = {"resultType": "vector", "result": rows}
        return {"status": "success", "data": data}


def engine(asked, **keys):
    return Engine(History(url="http://mimir/prometheus/", **keys), asked)


def test_the_path_of_an_engine_stands_before_its_interface():
    asked = Asked()
    engine(asked).instant("up", at=100.0)
    assert asked.urls[0].startswith("http://mimir/prometheus/api/v1/query?query=up&time=100&")
    assert asked.forms == [None]


def test_a_long_question_is_posted():
    asked = Asked()
    engine(asked).instant("up + " * 400 + "up", at=100.0)
    assert asked.urls == ["http://mimir/prometheus/api/v1/query"]
    assert asked.forms[0].startswith("query=up+")


def test_a_range_of_more_points_than_one_answer_has_is_asked_in_pieces():
    asked = Asked()
    [line] = engine(asked, points=100).range("up", since=0.0, until=249.0, step=1.0)
    assert [(q["start"], q["end"]) for q in asked.questions] == [
        ("0", "99"), ("100", "199"), ("200", "249"),
    ]  # fmt: skip
    assert [at for at, _ in line.points] == [float(n) for n in range(250)]


def test_tenant_and_token_go_with_the_question_and_into_no_words(tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    asked = Asked()
    engine(asked, tenant="blue", tenant_header="X-Tenant", token_file=token).instant("up", at=1.0)
    headers = asked.accesses[0].headers
    assert headers == {"X-Tenant": "blue", "Authorization": "Bearer s3cret"}
    assert "s3cret" not in repr(asked.accesses[0])


def test_a_password_that_cannot_be_read_asks_nothing(tmp_path):
    asked = Asked()
    gone = engine(asked, username="dvfd", password_file=tmp_path / "gone")
    with pytest.raises(HistoryError, match=r"the password of \[history\] cannot be read"):
        gone.instant("up", at=1.0)
    assert not asked.urls


def test_a_token_of_two_lines_injects_no_header(tmp_path):
    token = tmp_path / "token"
    token.write_text("a\r\nX-Other: b")
    with pytest.raises(HistoryError, match="wanted one line"):
        engine(Asked(), token_file=token).instant("up", at=1.0)


def test_a_token_that_no_header_can_carry_is_refused_and_not_shown(tmp_path):
    token = tmp_path / "token"
    token.write_text("tok\u20acn-s3cret", encoding="utf-8")
    asked = Asked()
    with pytest.raises(HistoryError, match=r"its character 4 is none of ASCII$") as caught:
        engine(asked, token_file=token).instant("up", at=1.0)
    assert "cret" not in str(caught.value)
    assert not asked.urls


@pytest.mark.parametrize(("ahead", "words"), [(100.0, "100 s ahead of"), (-100.0, "100 s behind")])
def test_a_clock_that_is_off_is_an_error(ahead, words):
    with pytest.raises(HistoryError, match=words):
        engine(Asked(ahead)).in_time()


def test_a_clock_may_be_off_a_little():
    assert engine(Asked(20.0)).in_time() == pytest.approx(19.9, abs=0.2)
    assert engine(Asked(0.05)).in_time() == 0.0


def test_an_engine_that_is_away_is_named_without_the_question():
    def away(url, *_args, **_keys):
        raise DvfdError(f"{url}: Connection refused")

    with pytest.raises(HistoryError) as caught:
        engine(away).instant("up", at=1.0)
    assert str(caught.value) == (
        "http://mimir/prometheus/api/v1/query: Connection refused; asked of [history] url"
    )


# --- Over a real connection ---------------------------------------------------------------------


@contextmanager
def serving(answer):
    """The address of something that answers each request with what *answer* writes."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            length = int(self.headers.get("Content-Length") or 0)
            seen.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
            with suppress(OSError):  # whoever asked is gone
                answer(self)

        def do_POST(self):
            self.do_GET()

        def log_message(self, *_args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join(60)


def answering(body, *, length=None, wait=None):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(length or len(body)))
        handler.end_headers()
        if wait:
            wait.wait(60)
        handler.wfile.write(body)

    return answer


EMPTY = json.dumps({"status": "success", "data": {"resultType": "vector", "result": []}}).encode()


def test_a_posted_question_arrives_whole_with_its_headers(tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret")
    question = "up + " * 400 + "up"
    with serving(answering(EMPTY)) as (url, seen):
        settings = History(url=f"{url}/prometheus", token_file=token, tenant="blue")
        assert Engine(settings).instant(question, at=100.0) == []

    [(command, path, headers, body)] = seen
    assert (command, path) == ("POST", "/prometheus/api/v1/query")
    assert headers["Authorization"] == "Bearer s3cret"
    assert headers["X-Scope-OrgID"] == "blue"
    assert parse_qs(body.decode())["query"] == [question]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answering(EMPTY[:20], length=len(EMPTY)), "IncompleteRead"),
        (answering(EMPTY[:40]), "JSON that breaks off"),
        (answering(b"x" * 70_000), "more than 65536 bytes"),
        (answering(b"<html>please log in</html>"), "no JSON"),
    ],
)
def test_what_does_not_come_whole_is_refused(answer, words):
    with serving(answer) as (url, _), pytest.raises(HistoryError, match=words):
        Engine(History(url=url, answer_bytes=65_536)).instant("up", at=100.0)


def reflecting(handler):
    """Tells everybody how it was asked, as some gateways do."""
    said = f"no: {handler.headers['Authorization']} for {handler.path}"
    body = json.dumps({"status": "error", "error": said}).encode()
    handler.send_response(401)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("kind", ["token", "password", "url"])
def test_who_repeats_a_secret_does_not_get_it_printed(tmp_path, kind, broken):
    secret = tmp_path / "secret"
    secret.write_text("p4ss/w0rd?")
    keys = {"token": {"token_file": secret}, "password": {"username": "u", "password_file": secret}}

    def answer(handler):
        if broken:  # no HTTP at all: what came stands in the error
            handler.wfile.write(f"no {handler.headers['Authorization']} p4ss/w0rd?\r\n".encode())
        else:
            reflecting(handler)

    with serving(answer) as (url, seen):
        own = url.replace("//", "//u:p4ss%2Fw0rd%3F@") if kind == "url" else url
        settings = History(url=own, **keys.get(kind, {}))
        with pytest.raises(HistoryError) as caught:
            Engine(settings).instant("up", at=100.0)

    told = str(caught.value)
    sent = dict(seen[0][2])["Authorization"].split()[1]
    assert "no" in told
    for form in ("p4ss", "w0rd", sent):
        assert form not in told


def test_an_address_with_letters_beyond_ascii_is_asked_as_it_would_be_by_others():
    with serving(answering(EMPTY)) as (url, seen):
        assert Engine(History(url=f"{url}/pr\u00e9/a%20b")).instant("up", at=100.0) == []
    assert seen[0][1].startswith("/pr%C3%A9/a%20b/api/v1/query?query=up")


def test_an_engine_that_is_too_slow_is_not_waited_for():
    over = threading.Event()
    with serving(answering(EMPTY, wait=over)) as (url, _):
        with pytest.raises(HistoryError, match=r"no whole answer within|timed out"):
            Engine(History(url=url, timeout=0.3)).instant("up", at=100.0)
        over.set()


def test_after_its_time_nothing_more_is_asked():
    asked = Asked()
    late = Engine(History(url="http://engine"), asked, end=time.monotonic() - 1.0)
    with pytest.raises(HistoryError, match="0 questions took all the time"):
        late.instant("up", at=100.0)
    assert not asked.urls
