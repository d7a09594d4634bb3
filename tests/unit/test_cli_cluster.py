"""`dvfd cluster env`: what a shell is told, what is missing, and a command run with it."""

import json
import subprocess
import sys
import threading

import pytest

from dvfd import cluster
from dvfd.errors import DvfdError

CONFIG = """
node.name = "n2"
[cluster]
lead = "n1"
{more}
[[cluster.nodes]]
name = "n1"
address = "192.0.2.1"
[[cluster.nodes]]
name = "n2"
address = "{own}"
"""


@pytest.fixture
def env(tmp_path, monkeypatch):
    """Call `dvfd cluster env` as typed on n2; its exit code, stdout and stderr."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    def call(*arguments, own="127.0.0.1", more="", text=None, **environ):
        path = tmp_path / "dvfd.toml"
        path.write_text(CONFIG.format(own=own, more=more) if text is None else text)
        monkeypatch.setenv("DVFD_CONFIG", str(path))
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        done = subprocess.run(
            [sys.executable, "-m", "dvfd", "cluster", "env", *arguments],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    return call


def test_a_shell_that_evaluates_it_has_every_variable_as_it_was_meant(env, tmp_path):
    awkward = "it's $(touch x) =~"
    code, out, _ = env("--id", awkward)
    show = 'printf "%s|" "$PET_RDZV_ID" "$PET_RDZV_ENDPOINT" "$PET_RDZV_CONF" "$GLOO_SOCKET_IFNAME"'
    shell = subprocess.run(
        ["sh", "-c", f"{out}\n{show}"], capture_output=True, text=True, check=True, cwd=tmp_path
    )

    assert code == 0
    assert shell.stdout.split("|") == [
        awkward, "192.0.2.1:29511", "is_host=0,join_timeout=300,read_timeout=300", "lo", "",
    ]  # fmt: skip
    assert not (tmp_path / "x").exists()


def test_json_says_who_we_are_and_from_where(env):
    code, out, _ = env("-o", "json")
    told = json.loads(out)

    assert (code, told["node"], told["lead"], told["nodes"]) == (0, "n2", "n1", ["n1", "n2"])
    assert told["source"].endswith("dvfd.toml")
    assert set(told["variables"]) <= set(cluster.VARIABLES)


def test_a_command_is_run_with_the_variables_and_its_own_options(env):
    code, out, _ = env("sh", "-c", "echo $PET_RDZV_BACKEND $PET_LOCAL_ADDR; exit 7", "-o")

    assert (code, out) == (7, "c10d 127.0.0.1\n")


def test_a_command_that_is_not_there_is_named(env):
    code, out, err = env("no-such-torchrun", "--nnodes=2")

    assert (code, out) == (3, "")
    assert "no-such-torchrun: cannot be started" in err


def test_unset_takes_every_name_away_that_may_be_set(env):
    assert env("--unset")[1].split() == ["unset", *cluster.VARIABLES]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"own": "203.0.113.9"}, "no interface here carries 203.0.113.9"),
        ({"own": "no-such-name.invalid"}, "no-such-name.invalid does not resolve"),
        ({"own": "127.0.0.1"}, "127.0.0.1 is on lo and never leaves this node"),
        ({"more": 'interface = "nope0"'}, "there is no interface 'nope0' here"),
    ],
)
def test_what_is_missing_is_said_beside_what_can_be_told(env, keys, said):
    code, out, err = env(**keys)

    assert code == 0
    assert said in err
    assert "PET_RDZV_ENDPOINT" in out


def test_without_nodes_nothing_is_exported_and_the_key_is_named(env):
    code, out, err = env(text="")

    assert (code, out) == (78, "")
    assert "[[cluster.nodes]]" in err


def test_a_job_of_slurm_needs_no_configuration(env):
    _, out, _ = env(
        text="", SLURM_JOB_ID="42", SLURM_JOB_NODELIST="node[1-2]", SLURMD_NODENAME="node2"
    )

    assert "PET_RDZV_ENDPOINT='node1:29511'" in out
    assert "PET_RDZV_ID='slurm-42'" in out


def test_a_name_that_is_an_address_is_that_address():
    assert cluster.resolved("192.0.2.7") == ["192.0.2.7"]


def test_a_resolver_that_says_nothing_is_not_waited_for(monkeypatch):
    asked = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: asked.wait(30) and [])
    with pytest.raises(DvfdError, match="nobody says what n1 is within 0 s"):
        cluster.resolved("n1", within=0)
    asked.set()
