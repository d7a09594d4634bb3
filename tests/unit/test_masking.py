"""What hides a secret, and what it leaves alone."""

import io
import json

import pytest
import structlog
from fakes_sinks import NOW, result, snapshot, sources
from hypothesis import given
from hypothesis import strategies as st

from dvfd import log
from dvfd.config import Config, parse
from dvfd.errors import ConfigError
from dvfd.masking import masked, redacted, redacted_environment, without_user
from dvfd.model import Verdict
from dvfd.sinks.alert import criterion_alert, document
from dvfd.status import document as status_document


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("http://dvfd:geheim@am:9093", "http://***@am:9093"),
        ("https://geheim@am/api", "https://***@am/api"),
        ("http://u:p@ss@am", "http://***@am"),
        ("http://u:p/s@am", "http://***@am"),
        ("see http://u:p@am/x and http://u:q@am/y.", "see http://***@am/x and http://***@am/y."),
        ('["http://a","http://u:p@b"]', '["http://a","http://***@b"]'),
        ("https://am/?token=geheim&x=1#f", "https://am/?token=***&x=1#f"),
        ("https://am/?x=1&API_KEY=geheim", "https://am/?x=1&API_KEY=***"),
        ("https://am/?X-Amz-Signature=geheim", "https://am/?X-Amz-Signature=***"),
    ],
)
def test_a_secret_in_an_address_is_hidden(text, wanted):
    assert masked(text) == wanted


@pytest.mark.parametrize(
    "text",
    ["", "http://am:9093/api/v2/alerts", "rank 3 of job a@b: failed", "git@github.com:a/b.git",
     "https://github.com/@someone", "https://a/?orgId=1", "root@node4", "mail to a@b see http://c"],
)  # fmt: skip
def test_what_holds_no_secret_stays_as_it_is(text):
    assert masked(text) == text


def test_a_document_is_masked_to_its_last_leaf_and_keeps_its_other_values():
    given = {"urls": ("http://u:p@a",), "n": [1, None, {"http://u:p@k": 2.5}], "ok": True}

    assert masked(given) == {
        "urls": ("http://***@a",), "n": [1, None, {"http://***@k": 2.5}], "ok": True
    }  # fmt: skip


SECRET = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1)


@given(st.text(st.characters(codec="ascii", categories=["L", "N"])), SECRET)
def test_no_password_survives_whatever_it_is_made_of(user, password):
    shown = masked(f"POST http://{user}:{password}@am.example:9093/ failed")

    assert shown == "POST http://***@am.example:9093/ failed"


@given(st.text())
def test_masking_twice_changes_nothing_more(text):
    assert masked(masked(text)) == masked(text)


def test_a_link_loses_its_user_because_stars_would_be_one():
    assert without_user("https://u:p@dvfd.example/x") == "https://dvfd.example/x"


# --- Where words leave --------------------------------------------------------------------------

ADDRESS = "http://dvfd:geheim@am.example:9093"


@pytest.mark.parametrize("terminal", [False, True])
def test_the_log_hides_it_in_values_and_in_tracebacks(terminal, monkeypatch):
    class Stream(io.StringIO):
        def isatty(self):
            return terminal

    said = Stream()
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    monkeypatch.setattr("sys.stderr", said)
    before = structlog.get_config()
    try:
        log.setup()
        try:
            int(ADDRESS)
        except ValueError:
            structlog.get_logger("masking").exception("failed", url=ADDRESS, many=[ADDRESS])
    finally:
        structlog.configure(**before)

    assert "geheim" not in said.getvalue()
    assert said.getvalue().count("***@am.example") == 3
    assert terminal or json.loads(said.getvalue())["url"] == "http://***@am.example:9093"


def test_the_status_document_hides_it_also_in_lines_that_a_job_wrote():
    line = {"log": "training", "line": f"cannot reach {ADDRESS}"}
    taken = snapshot(of=sources(log_lines=lambda: [line]))

    assert status_document(taken, running=True)["log_lines"][0]["line"].endswith(
        "***@am.example:9093"
    )
    assert "geheim" not in str(taken)


def test_an_alert_links_to_the_page_without_the_password():
    config = Config(alerting={"external_url": "https://dvfd:geheim@page.example/"})
    body = document(criterion_alert(result(Verdict.FAIL), NOW), config, now=NOW)

    assert body["generatorURL"] == "https://page.example/"


@pytest.mark.parametrize(
    "urls",
    ['["http://dvfd:ge/heim@am:9093"]', '["dvfd:geheim@am:9093"]', '["ftp://dvfd:geheim@am"]',
     '"http://dvfd:geheim@am"', '["http://dvfd:geheim@am", 3]', '["http://dvfd:geheim@am:x"]'],
)  # fmt: skip
def test_a_complaint_about_an_address_hides_it(urls):
    with pytest.raises(ConfigError) as caught:
        parse(f"[alerting]\nurls = {urls}\n")

    said = "\n".join(caught.value.problems)
    assert "alerting.urls" in said
    assert "heim" not in said


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("password=12345 lr=0.1", "password=*** lr=0.1"),
        ("export WANDB_API_KEY=abc", "export WANDB_API_KEY=***"),
        ('{"client_secret": "a b", "x": 1}', '{"client_secret": "***", "x": 1}'),
        ("curl -H 'Authorization: Bearer abc.def'", "curl -H 'Authorization: ***'"),
        ("train --password hunter2 --lr 3", "train --password *** --lr 3"),
        ("key AKIAABCDEFGHIJKLMNOP found", "key *** found"),
        ("ghp_abcdefghijklmnopqrst0123 pushed", "*** pushed"),
        ("-----BEGIN RSA PRIVATE KEY-----\nab\n-----END RSA PRIVATE KEY-----\nx", "***\nx"),
        ("-----BEGIN PRIVATE KEY-----\ncut off", "***"),
        ("db://u:geheim@h/x", "db://***@h/x"),
    ],
)
def test_what_another_program_wrote_is_redacted(text, wanted):
    assert redacted(text) == wanted
    assert redacted(wanted) == wanted


@pytest.mark.parametrize(
    "text",
    ["tokens_per_second=1234.5 loss=2", "tokenizer=gpt2", "tokens: 4096", "key=value",
     "passed=True, 5 passing tests: all", "bypass=1 compass=2", "secretary: Ann",
     "rank 3: step 5, a deadbeef0123456789 hash"],
)  # fmt: skip
def test_a_line_of_training_stays_readable(text):
    assert redacted(text) == text


def test_an_environment_loses_what_its_name_or_its_value_gives_away():
    given = {
        "HF_TOKEN": "x", "DEPLOY_KEY": "1", "OTHER": "aB3dEf6hIjKlMnOpQrStUvWx9",
        "HTTP_PROXY": "http://u:p@h:1", "PATH": "/usr/bin:/bin", "SHA": "deadbeef" * 8,
        "OMP_NUM_THREADS": "1", "KEYBOARD": "us", "MASTER_ADDR": "10.0.0.1",
    }  # fmt: skip

    found = redacted_environment(given)

    hidden = {name for name, value in found.items() if value == "***"}
    assert hidden == {"HF_TOKEN", "DEPLOY_KEY", "OTHER"}
    assert found["HTTP_PROXY"] == "http://***@h:1"
    assert all(found[name] == given[name] for name in set(given) - hidden - {"HTTP_PROXY"})


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=6))
def test_no_value_survives_a_name_that_says_what_it_is(value):
    for line in (f"db_password={value}", f"API-KEY: {value}", f"x --secret {value}"):
        assert value not in redacted(line).partition("=")[2] + redacted(line).rpartition(" ")[2]
