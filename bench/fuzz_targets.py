"""What is fuzzed besides packets: everything here that reads what somebody else wrote.

A target is one line of the table: what it reads, what it may raise and nothing else, and inputs to
begin with. Where a format is sealed by a hash, the input is sealed first: a fuzzer finds no hashes.
"""

# ruff: noqa: E501, ISC004  # inputs as others write them
from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import math
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

from bench.fuzz_packets import unsound
from bench.fuzzed import recorded
from dvfd import (
    checkpoint_verify,
    config,
    exposition,
    manifest,
    masking,
    perfdata,
    remote,
    scraped,
)
from dvfd.clock import SystemClock
from dvfd.config import Jobs, Metrics
from dvfd.errors import ConfigError, DvfdError, HistoryError, ProbeError, StoreError, WireError
from dvfd.evidence import bundle
from dvfd.evidence.chain import FOUNDED, ORIGIN, Chain, sealed
from dvfd.history import answer
from dvfd.manifest import Broken, Unclear
from dvfd.runs.crossed import Crossed
from dvfd.runs.rows import Event, Minute, What, Window
from dvfd.runs.told import Page, table
from dvfd.sinks import http, web_config
from dvfd.telemetry import wire
from dvfd.telemetry.feed import Feed
from dvfd.telemetry.files import JsonLinesFile
from dvfd.telemetry.jobs import JobBook
from dvfd.telemetry.patterns import LINES, NOTICES
from dvfd.telemetry.trainer_log import TrainerLog

FIXTURES = Path(__file__).resolve().parents[1] / "tests/fixtures"
EXPOSITIONS = Path(__file__).parent / "expositions"

KIB = 1 << 10


@dataclass(frozen=True, slots=True)
class Target:
    """A reader: *feed* takes an input and raises one of *raises*, or nothing."""

    name: str
    reads: str
    feed: Callable[[bytes], object]
    raises: tuple[type[Exception], ...]
    seeds: Callable[[], Iterable[bytes]]
    most: int = 4 * KIB  # bytes of an input

    def take(self, data: bytes) -> None:
        """Read *data*. Raises what a reader must not raise."""
        try:
            self.feed(data)
        except self.raises:
            return


# --- Readers ------------------------------------------------------------------------------------

_PLACE = Path(tempfile.gettempdir()) / f"fuzzed-{os.getpid()}"
"""The file of those that read files: one process fuzzes one target."""


def _packet(data: bytes) -> None:
    wrong = "; ".join(unsound(wire.decode(data)))
    assert not wrong, wrong


def _exposition(data: bytes) -> None:
    list(exposition.samples(data + b"\n"))


def _node(data: bytes) -> None:
    scraped.exposed(data)


def _prometheus(data: bytes) -> None:
    for series in scraped.answered(data):
        assert math.isfinite(series.value)


def _perfdata(data: bytes) -> None:
    said = perfdata.read(data.decode(errors="replace"))
    assert len(said.data) <= perfdata.MOST
    assert all(math.isfinite(datum.value) for datum in said.data)


def _trainer(data: bytes) -> None:
    lines = data.decode(errors="replace").split("\n")
    for pattern in sorted({*LINES, *NOTICES}):
        for said in TrainerLog(pattern).read(lines):
            assert said.get("event", "end") in wire.EVENTS, said


def _json_lines(data: bytes) -> None:
    """A file that is followed from before its first line, into a real book."""
    _PLACE.unlink(missing_ok=True)
    clock = SystemClock()
    book = JobBook(Jobs(), clock)
    settings = Metrics(path=_PLACE, job="fuzzed", world_size=4)
    source = JsonLinesFile(settings, book, clock, lambda _news: None)
    source._feeds = {  # whose writer nobody looks for: that is a walk through /proc each time
        rank: Feed(book, clock, lambda _news: None, job="fuzzed", where="a file", rank=rank,
                   world_size=4)
        for rank in range(2)
    }  # fmt: skip
    with contextlib.suppress(ProbeError):  # it is not there yet, so all of it is new
        source.poll()
    _PLACE.write_bytes(data + b"\n")
    source.poll()
    assert len(book.all()) <= Jobs().limit
    for job in book.snapshot():
        json.dumps(job)


def _manifest(data: bytes) -> None:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):  # as somebody would who knows the format
        data = json.dumps(manifest.seal({"format": manifest.FORMAT, **document})).encode()
    folder = _PLACE.with_suffix(".d")
    folder.mkdir(exist_ok=True)
    (folder / "a").write_bytes(b"x")
    (folder / manifest.NAME).write_bytes(data)
    manifest.check_own(folder)


def _promql(data: bytes) -> None:
    asked = answer.Asked(1000.0, 2000.0, 10.0)
    for line in answer.read(200, data, asked):
        assert all(map(math.isfinite, (n for point in line.points for n in point)))


def _peer(data: bytes) -> None:
    found = remote.data_in(remote.Answer(200, data, 0.0, 0.0), "http://peer:9109", remote.OPEN)
    page = Page.from_document(found, "peer")
    crossed = Crossed(2)
    for row in page.rows:
        if isinstance(row, Event) and row.what is What.HASHED:
            crossed.add(row)
    crossed.count(0.0, 1e9)


def _packed(data: bytes) -> None:
    assert len(remote._unpacked(data, 1 << 20)) <= 1 << 20


def _ledger(data: bytes) -> None:
    chain = Chain()
    for line in data.split(b"\n"):
        body = line.rstrip()
        if body.endswith(b"}"):
            seal = hashlib.sha256(body).hexdigest()
            body = body[:-1] + f',"sha256":"{seal}"}}'.encode()
        chain.take(body)
    assert len(chain.problems) <= 21


def _bundle(data: bytes) -> None:
    _PLACE.write_bytes(data)
    bundle.opened(_PLACE)


def _web_config(data: bytes) -> None:
    _PLACE.write_bytes(data)
    web_config.load(_PLACE)


def _config(data: bytes) -> None:
    config.parse(data.decode(errors="replace"))


def _http(data: bytes) -> None:
    request = http.parse(data)
    http.encode(request, http.plain(HTTPStatus.NOT_FOUND, request.path[:10]))


def _masking(data: bytes) -> None:
    masking.redacted(data.decode(errors="replace"))


def _checkpoint(data: bytes) -> None:
    for suffix in (".pt", ".safetensors"):
        path = _PLACE.with_suffix(suffix)
        path.write_bytes(data)
        try:
            checkpoint_verify.has_checksum(path)
        except (Broken, Unclear):
            continue
        finally:
            path.unlink()


# --- Inputs to begin with -----------------------------------------------------------------------


def _expositions() -> list[bytes]:
    files = [gzip.decompress(path.read_bytes()) for path in sorted(EXPOSITIONS.glob("*.gz"))]
    files += [path.read_bytes() for path in sorted((FIXTURES / "exposition").glob("*.prom"))]
    heads = [b"\n".join(file.split(b"\n")[:40]) for file in files]
    return [*heads, b'a{b="c\\"\\n",d="e"} 1e3 1700000000000', b"a NaN", b"a +Inf", b"a{} 1 # {} 2"]


def _logs() -> list[bytes]:
    return [
        b"step 0: train loss 4.2874, val loss 4.2823\niter 10: loss 3.2400, time 402.11ms",
        b"saving checkpoint to out\niter 20: loss nan, time 2412.43ms\ndvfd: exit 1",
        b" [2026-08-19 09:00:01] iteration 100/ 500000 | consumed samples: 102400 | elapsed time "
        b"per iteration (ms): 8654.2 | global batch size: 1024 | lm loss: 2.504220E+00 | grad norm:"
        b" 0.231 | number of nan iterations: 1 |\n validation loss at iteration 100 | lm loss value:"
        b" 2.611000E+00 |\nsaving checkpoint at iteration     100 to /ckpt/gpt in torch_dist format",
        b"\x1b[31mstep: 10  \x1b[32mloss:  8.12345  \x1b[0mgrad_norm:  1.4321\nSaving the checkpoint."
        b"\nFinished saving the checkpoint in 3.21 seconds.\nTraining completed",
        b"{'loss': 2.3311, 'grad_norm': nan, 'learning_rate': 4.9e-05, 'epoch': 0.02}\n"
        b"[INFO|trainer.py:1] 2024-06-01 10:00:02,123 >> Saving model checkpoint to /o/checkpoint-5",
        b"[rank3]: Traceback (most recent call last):\n[rank3]:   File x\n[rank3]: ValueError: y",
    ]


def _steps() -> list[bytes]:
    return [
        b'{"step": 7, "loss": 2.1, "samples": 32, "rank": 0}\n{"step": 8, "loss": NaN, "rank": 3}',
        b'{"event": "checkpoint_saved", "step": 7, "path": "/c"}\n{"event": "end", "failed": true}',
        b'{"step": 9, "loss": 1e308, "val_loss": -1, "lr": 1e-4, "grad_norm": Infinity, "bytes": 1}',
    ]


def _manifests() -> list[bytes]:
    entry = {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    files = [{"a": entry}, {"../a": entry}, {"a/b": entry}, {"/etc/passwd": entry}, {"a": {}}]
    return [json.dumps({"files": each, "tensors": {"w": "0"}}).encode() for each in files]


def _answers() -> list[bytes]:
    rows = {
        "matrix": [{"metric": {"job": "b"}, "values": [[1000, "1"], [1010, "-0"]]}],
        "vector": [{"metric": {}, "value": [1000, "1"]}],
        "scalar": [1000, "1"],
    }
    found = [{"resultType": kind, "result": each} for kind, each in rows.items()]
    told: list[dict[str, object]] = [{"status": "success", "data": each} for each in found]
    more: list[dict[str, object]] = [
        {"status": "error", "error": "no"},
        {**told[0], "warnings": ["w"]},
        {**told[0], "isPartial": True},
    ]
    return [json.dumps(each).encode() for each in (*told, *more)]


def _pages() -> list[bytes]:
    event = Event(node="n", t=1.0, at=2.0, what=What.HASHED, rank=0, step=5, text="grad 7")
    window = Window("n", 0, 0, "s", 1, 50, 50, 1.0, 2.0)
    minute = Minute("n", "cpu_ratio", (("job", "a"),), 0, 1, 1.0, 1.0, 1.0, 1.0)
    run = {
        "id": "r", "of": "o", "check": "stability_phase2a", "job": "gpt", "node": "n",
        "stage": "running", "reason": "", "stopped_by": "", "duration": 60.0, "processes": 4,
        "discounts": [], "armed_at": 1.0, "began_t": None, "ended_t": None, "looked_t": 0.0,
        "t": 1.0, "at": 1.0, "done": False,
    }  # fmt: skip
    rows: dict[str, list[Window | Minute | Event]] = {
        "windows": [window], "minutes": [minute], "events": [event],
    }  # fmt: skip
    tables = {kind: table(kind, each) for kind, each in rows.items()}
    page = {"run": run, "since": 0, "until": 3, "newest": 3, **tables}
    return [json.dumps({"schema": 1, "data": page}).encode()]


def _records() -> list[bytes]:
    first = {"number": 1, "at": 1.0, "kind": FOUNDED, "subject": "c", "body": {}, "node": "n",
             "submitted": "", "previous": ORIGIN}  # fmt: skip
    record, _ = sealed(first)
    second = {**first, "number": 2, "kind": "drill", "previous": record.sha256,
              "body": {"report": {"where": "runs/a.json", "sha256": "0"}}}  # fmt: skip
    return [b"\n".join(json.dumps(each).encode() for each in (first, second))]


def _bundles() -> list[bytes]:
    made = io.BytesIO()
    _, line = sealed(
        {"number": 1, "at": 1.0, "kind": FOUNDED, "subject": "c", "node": "n", "submitted": "",
         "body": {"report": {"where": "runs/a.json", "sha256": "0"}}, "previous": ORIGIN}
    )  # fmt: skip
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in {bundle.LEDGER: line, "runs/a.json": b"{}"}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return [made.getvalue(), gzip.compress(made.getvalue(), mtime=0)]


def _archives() -> list[bytes]:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("state/data.pkl", b"\x80\x02}q\0.")
        archive.writestr("state/data/0", b"x" * 100)
    header = json.dumps({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    return [made.getvalue(), len(header).to_bytes(8, "little") + header + b"\0" * 4]


def _settings() -> list[bytes]:
    return [
        b'[node]\nname = "a"\n[http]\nport = 1\n[[logs]]\nname = "x"\npath = "/x"\n'
        b'[[logs.allow]]\npattern = "a"\nuntil = 2026-01-01T00:00:00Z\nreason = "r"\n',
        b'[cluster]\nlead = "a"\n[[cluster.nodes]]\nname = "a"\naddress = "10.0.0.1"\n'
        b'[history]\nurl = "http://u:p@h:1/x"\n[history.matchers]\na = "b"\n',
        b'[[plugin]]\nname = "p"\ncommand = ["/bin/true"]\n[override."live.cpu"]\nlimit = 1\n'
        b'reason = "r"\n[[maintenance]]\nsince = 2026-01-01T00:00:00Z\nuntil = '
        b'2026-01-02T00:00:00Z\nreason = "m"\n',
    ]


def _web_configs() -> list[bytes]:
    return [
        b"tls_server_config:\n  cert_file: a\n  key_file: b\n  min_version: TLS13\n",
        b"basic_auth_users:\n  a: $2b$10$" + b"a" * 53 + b"\nhttp_server_config:\n  http2: true\n",
        b"a: &a [x]\nb: [*a, *a]\n",
    ]


def _requests() -> list[bytes]:
    return [
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip;q=0.5, br\r\n"
        b"Authorization: Basic YTpi",
        b"HEAD //x:y@[::1]:9/%2e?a=b HTTP/1.0\r\n\r\n",
    ]


def _secrets() -> list[bytes]:
    return [
        b"POST http://u:p/w@h:1/?token=x failed\ntrain --password hunter2 'api_key': \"a b\"",
        b"-----BEGIN RSA PRIVATE KEY-----\\nMIIEvQ\\n-----END RSA PRIVATE KEY-----\nghp_abcdefghij",
        b"curl -u u:p -H 'Authorization: Bearer ab.cd' eyJhbGciOiJ.eyJzdWIiOiIx.x AKIAABCDEFGHIJKL",
    ]


TARGETS = {
    target.name: target
    for target in (
        Target("packets", "ranks' packets", _packet, (WireError,), recorded),
        Target("expositions", "exporters' samples", _exposition, (ProbeError,), _expositions),
        Target("nodes", "other nodes' /metrics", _node, (ProbeError,), _expositions),
        Target("engines", "a PromQL engine's answer", _promql, (HistoryError,), _answers),
        Target("fleet", "a Prometheus' instant answer", _prometheus, (ProbeError,), _answers),
        Target("peers", "another leader's rows", _peer, (DvfdError,), _pages, 8 * KIB),
        Target(
            "packed", "a packed answer", _packed, (HTTPException,), lambda: [gzip.compress(b"a")]
        ),
        Target(
            "perfdata", "plugins' output", _perfdata, (), lambda: [b"OK - x | 'a b'=1.5ms;1;2;0;9"]
        ),
        Target("trainers", "trainers' logs", _trainer, (), _logs),
        Target("lines", "jobs' JSON lines", _json_lines, (ProbeError, WireError), _steps),
        Target("manifests", "a checkpoint's manifest", _manifest, (Broken, Unclear), _manifests),
        Target("checkpoints", "archives and safetensors", _checkpoint, (), _archives),
        Target("ledger", "lines of evidence", _ledger, (), _records),
        Target("bundles", "a bundle of evidence", _bundle, (StoreError,), _bundles, 16 * KIB),
        Target("settings", "the configuration", _config, (ConfigError,), _settings),
        Target("web", "the web configuration", _web_config, (ConfigError,), _web_configs),
        Target("requests", "heads of HTTP requests", _http, (http.BadRequest,), _requests, 8 * KIB),
        Target("secrets", "text that is redacted", _masking, (), _secrets),
    )
}
"""Every reader by its name."""
