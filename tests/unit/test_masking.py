"""What hides a secret, and what it leaves alone."""

import io
import json
import time

import pytest
import structlog
from fakes_sinks import NOW, result, snapshot, sources
from hypothesis import given
from hypothesis import strategies as st

from dvfd import log
from dvfd.config import Config, parse
from dvfd.errors import ConfigError
from dvfd.masking import (
    masked,
    redacted,
    redacted_command,
    redacted_environment,
    without_user,
)
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
        ("login failed: api_key=hunter2 for x", "login failed: api_key=*** for x"),
        ("export WANDB_API_KEY=abc", "export WANDB_API_KEY=***"),
        ('{"client_secret": "a b", "x": 1}', '{"client_secret": "***", "x": 1}'),
        ("curl -H 'Authorization: Bearer abc.def'", "curl -H 'Authorization: ***'"),
        ("train --password hunter2 --lr 3", "train --password *** --lr 3"),
        ("key AKIAABCDEFGHIJKLMNOP found", "key *** found"),
        ("ghp_abcdefghijklmnopqrst0123 pushed", "*** pushed"),
        ("-----BEGIN RSA PRIVATE KEY-----\nab\n-----END RSA PRIVATE KEY-----\nx", "***\nx"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg", "***"),
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


# --- What other programs write ------------------------------------------------------------------

S = "hunter2XsecretZ"

WRITTEN = [
    # arguments and options
    f"INFO argv: ['train.py', '--wandb-token', '{S}']", f'["--api-key",\n  "{S}"]',
    json.dumps({"cmd": ["train.py", "--api-key", S]}, indent=1), f'[\\"--token\\", \\"{S}\\"]',
    f"--password 'a {S}'", f'--password "a {S}"', f"--token\t{S}", f"--secret \\\n  {S}",
    f"sshpass -p {S} ssh h", f"['sshpass', '-p', '{S}']", f"curl -u u:{S} https://h", f"-uu:{S}",
    f"['curl', '-u', 'u:{S}']", f"curl --user=u:{S}", f"mysql -p{S} -u root",
    f"redis-cli -a {S}", f"docker login -u a -p {S}",
    # JSON and its like
    json.dumps({"msg": json.dumps({"password": S})}), f'{{"password": "ab\\"{S}"}}',
    json.dumps({"a": json.dumps({"b": json.dumps({"password": f'x"{S}'})})}),
    f"config: {{'password': 'a\\'{S}'}}", f'{{"auths": {{"h": {{"auth": "{S}"}}}}}}',
    f'"password":\n  "{S}"', f'{{"api_keys": ["x", "{S}"]}}', f"passwords = ['aa', '{S}']",
    f"password=b'{S}'", f"password=SecretStr('{S}')", f"password: str = '{S}'",
    # assignments
    f"password:     {S}", f"password:\n  {S}", f"password: |\n  {S}", f"password=ab,{S}",
    f"password=ab;{S}", f"password=ab'{S}", f"MYKEY={S}", f"RSA_KEY={S}", f"SSHPASS={S}",
    f"MYSQL_ROOT_PW={S}", f"jwt={S}", f"dbpass={S}", f"SharedAccessSignature={S}",
    f"AccountKey={S};EndpointSuffix=x", f"GH_PAT={S}",
    # headers, files, addresses
    f"> Authorization: Digest {S}", f"Authorization: Api-Key {S}",
    f"Authorization: AWS4-HMAC-SHA256 Credential=AKIA/2020, SignedHeaders=host, Signature={S}",
    f'Authorization: Digest username="u", realm="a b", response="{S}"',
    f"> Cookie: theme=x; lang=de; session={S}", f"machine h login l password {S}",
    f"machine h\n  login l\n  password {S}", f"requirepass {S}",
    f"https://acct.blob.core.windows.net/c?sv=2024&sig={S}", f"https://h/?sas={S}&x=1",
    f"https://hooks.slack.com/services/T0/B0/{S}",
    # shapes
    f"npm_{S}{S}", f"sk_live_{S}", f"pypi-AgEIcHlwaS5vcmc{S * 2}", f"root:$6$salt${S}:18000",
    # keys
    f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{S}\n-----END PGP PRIVATE KEY BLOCK-----",
    f"MIIE\n{S}\n-----END RSA PRIVATE KEY-----", f"-----BEGIN RSA PRIVATE KEY-----\n{S}\n{S}",
    f"-----BEGIN RSA PRIVATE KEY-----\\n{S}\\n\", 1", f"MIIE\\n{S}\\n-----END PRIVATE KEY-----",
    f"-----BEGIN PRIVATE KEY-----\n[rank 0] {S * 3}",
    f"[rank 0] {S * 3}\n-----END PRIVATE KEY-----",
]  # fmt: skip


@pytest.mark.parametrize("text", WRITTEN)
def test_a_secret_that_another_program_wrote_is_hidden(text):
    assert S not in redacted(f"{text}\nnext line")
    assert redacted(f"{text}\nnext line").endswith("\nnext line")


@pytest.mark.parametrize("text", WRITTEN)
def test_the_words_before_and_after_a_secret_stay(text):
    shown = redacted(f"ERROR: CUDA out of memory\n{text}\nERROR: no space left on device")

    assert shown.startswith("ERROR: CUDA out of memory\n")
    assert shown.endswith("\nERROR: no space left on device")


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        ("Authorization: permission denied for user x: out of memory", "for user x: out of memory"),
        ("Cookie: a=b; ERROR: something went wrong", "something went wrong"),
        ("password: 'abc CUDA out of memory", "CUDA out of memory"),
        ("Invalid token: CUDA error: device-side assert", "error: device-side assert"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQ\nERROR: out of memory", "ERROR: out of memory"),
        ("ERROR: out of memory\nMIIE\n-----END PRIVATE KEY-----", "ERROR: out of memory\n"),
        ('{"credentials": {"pwd": "a"}, "err": "no space"}', '"err": "no space"}'),
        ('{"token":"x","msg":"no space"}', '"msg":"no space"}'),
        ("token=x,loss=3", "loss=3"),
    ],
)
def test_hiding_costs_an_error_message_a_word_or_two(text, stays):
    assert stays in redacted(text)
    assert redacted(text) != text


@pytest.mark.parametrize(
    "text",
    ['Missing key(s) in state_dict: "token_emb.weight", "pos_emb.weight", "auth.weight"',
     "Unrecognized keys: ['token_type_ids', 'attention_mask']", "tokens: 1.2M, 3.4k tok/s",
     "num_tokens: [1, 2, 3]", "received sig=11", "pin_memory=True, use_auth: False", "BYPASS=1",
     'password authentication failed for user "x"', "std::token::parse(x)",
     "Enter password:\nTraceback (most recent call last):", "docker run --user 1000:1000 x"],
)  # fmt: skip
def test_what_only_sounds_like_a_secret_stays(text):
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DOCKER_AUTH_CONFIG", json.dumps({"auths": {"h": {"auth": S}}})), ("SSHPASS", S),
        ("SLACK_WEBHOOK_URL", f"https://hooks.slack.com/services/T0/B0/{S}"), ("DBPASS", S),
        ("MYSQL_ROOT_PW", S), ("AZURE_STORAGE_SAS", S), ("JWT", S), ("X_PSK", S), ("MYKEY", S),
        ("CREDS", S), ("AWS_CREDS", S), ("REDISCLI_AUTH", S), ("HMAC", S), ("VAULT_UNSEAL", S),
        ("CMD_ARGS", f"['--token', '{S}']"), ("PROMPT_COMMAND", f"curl -u a:{S}"),
        ("NETRC", f"machine h login l password {S}"), ("CONN", f"Server=x;Pwd={S}"),
        ("PG", WRITTEN[-7]), ("PIP_INDEX_URL", f"https://u:{S}@h/"),
    ],
)  # fmt: skip
def test_a_secret_in_an_environment_is_hidden(name, value):
    assert S not in redacted_environment({name: value})[name]


def test_an_environment_keeps_what_explains_a_failure():
    given = {"XAUTHORITY": "/root/.x", "COMPASS": "n", "NCCL_DEBUG": "INFO", "AUTHOR": "Ann",
             "CUDA_VISIBLE_DEVICES": "0,1", "XDG_SESSION_ID": "3"}  # fmt: skip

    assert redacted_environment(given) == given


@pytest.mark.parametrize(
    "unit",
    ["token_ids_", "token", " -token-", "https://h/?token", '{"u":"https://h/a/b@"},', "password='",
     'password=\\"a,', "password=[", "eyJ-aaaaaaaa", "-----BEGIN A PRIVATE KEY-----\nMIII\n", " ",
     "MIIE\\n-----END A PRIVATE KEY-----", "://a", "-u,", "\\", "Cookie: a;", "x',", "password=a&"],
)  # fmt: skip
def test_no_text_takes_more_than_time_in_proportion_to_its_length(unit):
    text = unit * ((128 << 10) // len(unit)) + "@"
    began = time.process_time()

    redacted(text)

    assert time.process_time() - began < 3.0, "a second a MiB is usual: it grows with the square"


@pytest.mark.parametrize(
    "argv",
    [
        ["check", "--token", S], ["check", f"--api-key={S}"], ["env", f"WANDB_API_KEY={S}", "x"],
        ["check", "--password", f"two words {S}"], ["check", f"--password=two words {S}"],
        ["sh", "-c", f'echo "CRITICAL: cannot log in: password={S}"; exit 2'],
        ["sh", "-c", f"curl -H 'Authorization: Bearer {S}' https://u:{S}@h/?token={S}"],
        ["curl", "-u", f"u:{S}", "https://h"], ["/usr/bin/mysql", "-h", "h", f"-p{S}"],
        ["sshpass", "-p", S, "ssh", "h"], ["docker", "login", "-u", "a", "-p", S],
        ["check", f"https://u:{S}@h", "--key", S], ["check", "--token", S, f"hf_{S}{S}"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_secret_in_a_command_is_hidden(argv):
    shown = redacted_command(argv)

    assert S not in "\n".join(shown)
    assert len(shown) == len(argv)
    assert shown[0] == argv[0]


@pytest.mark.parametrize(
    "command",
    ["torchrun --nproc_per_node=4 train.py --tokenizer gpt2 --max-tokens 4096 --lr=3e-4",
     "/usr/lib/nagios/plugins/check_disk -w 10% -c 5% -p /", "train --max-tokens=4096 --bypass x",
     "python -u -m train --num-tokens 1,2 --author Ann", "env LANG=C OMP_NUM_THREADS=1 true"],
)  # fmt: skip
def test_a_command_without_a_secret_stays_word_for_word(command):
    assert redacted_command(command.split()) == command.split()


@given(st.lists(st.text()))
def test_a_command_keeps_its_number_of_words(argv):
    assert len(redacted_command(argv)) == len(argv)
