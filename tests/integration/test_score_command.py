"""`litelambda score` and `litelambda bench batch`, as a person calls them."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from functools import partialmethod

import numpy as np
import pytest

from litelambda.cli.main import main
from litelambda_serving.scoring.running.workers import Workers
from support.golden_store import golden, publish
from support.scoring_files import as_jsonl, expected, make_rows, processes_at_once, read_jsonl


@pytest.fixture
def store(tmp_path):
    publish(tmp_path / "store", "tiny_int8")
    return (tmp_path / "store").as_uri()


def test_a_file_on_this_machine(store, tmp_path, capsys):
    """Paths in, paths out; `--json` prints the run summary and nothing else, a person gets two lines."""
    rows = make_rows(100)
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(rows))
    command = [
        "score",
        str(tmp_path / "rows.jsonl"),
        str(tmp_path / "out.npy"),
        "--model",
        "tiny_int8",
        "--store",
        store,
    ]
    assert main([*command, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows_in"], summary["rows_out"], summary["model"]["version"]) == (100, 100, 1)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected(rows))
    assert main([*command, "--force"]) == 0
    assert "100 of 100 rows scored by tiny_int8 version 1" in capsys.readouterr().out


def test_explanations_need_names(store, tmp_path, capsys):
    """An array holds numbers alone: attributions by name go into text formats, and at most a hundred of a row."""
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(make_rows(1)))
    for output, count, reason in (("out.npy", "1", "expected jsonl or csv"), ("out.csv", "101", "from 1 to 100")):
        command = ["score", str(tmp_path / "rows.jsonl"), str(tmp_path / output), "--model", "tiny_int8"]
        assert main([*command, "--store", store, "--explain", count]) == 2
        assert reason in capsys.readouterr().err


def test_several_classes_at_once_have_no_label(tmp_path):
    """A model of one class for each row names it; one of any number at once has scores alone."""
    rows = make_rows(3)
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(rows))
    for task, label in (("classification", {"label"}), ("multi_label", set())):
        publish(tmp_path / "tasks", task, data=golden("tiny_int8"), labels=["a", "b", "c"], task=task)
        output = tmp_path / f"{task}.jsonl"
        store = (tmp_path / "tasks").as_uri()
        assert main(["score", str(tmp_path / "rows.jsonl"), str(output), "--model", task, "--store", store]) == 0
        assert [row.keys() for row in read_jsonl(output.read_bytes())] == [{"line", "prediction"} | label] * 3


def test_exit_codes(store, tmp_path, capsys):
    """An output that exists, a bad input or a missing model is 1; what makes no sense is 2; each says why."""
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(make_rows(5)) + b"bad\n")
    source, output = str(tmp_path / "rows.jsonl"), str(tmp_path / "out.jsonl")
    base = ["--model", "tiny_int8", "--store", store]
    for command, code, message in (
        (["score", source, output, *base], 1, "1 of 6 rows are bad"),
        (["score", source, output, *base, "--tolerate", "0.2"], 0, ""),
        (["score", source, output, *base, "--tolerate", "0.2"], 1, "exists already"),
        (["score", source + "x", output, *base], 1, "there is no"),
        (
            ["score", source, str(tmp_path / "out2.jsonl"), "--model", "none", "--store", store],
            1,
            "the models tiny_int8",
        ),
        (["score", source, output, "--model", "tiny_int8@best", "--store", store], 1, "it has 1, aliases: latest (1)"),
        (["score", source, output, "--model", "tiny_int8:7", "--store", store], 1, "it has 1, aliases: latest (1)"),
        (["score", source, output, "--model", "tiny_int8", "--store", store + "x"], 2, "there is no store at"),
        (["score", source, str(tmp_path / "out.xyz"), *base], 2, "give it the ending .jsonl, .csv or .npy"),
        (["score", source, str(tmp_path / "out"), *base], 2, "give it the ending .jsonl, .csv or .npy"),
        (["score", source, str(tmp_path / "out.csv"), *base, "--output-format", "npy"], 2, "ends with .csv, and"),
        (["score", source, output, *base, "--tolerate", "7"], 2, "share from 0 to 1"),
        (["score", source, output, *base, "--output-format", "xml"], 2, "jsonl, csv, npy"),
        (["score", source, output, "--model", "tiny_int8", "--on", "aws"], 2, "state-machine"),
    ):
        assert main(command) == code, command
        assert message in capsys.readouterr().err
    assert {path.name for path in tmp_path.glob("out*")} == {"out.jsonl", "out.errors.jsonl", "out.summary.json"}


def test_a_terminal_sees_a_bar(store, tmp_path):
    """Progress goes to stderr, only where that is a terminal; at the end a line with the rows takes its place."""
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(make_rows(30_000)))
    ours, theirs = pty.openpty()
    command = [
        *(sys.executable, "-m", "litelambda", "score", str(tmp_path / "rows.jsonl"), str(tmp_path / "out.jsonl")),
        *("--model", "tiny_int8", "--store", store, "--json"),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, check=True)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 65536):
            shown += block
    except OSError:
        pass  # how a terminal says that the other end was closed
    os.close(ours)
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"score +━+ +100% 30,000 rows, [\d,]+/s", text)
    assert text.splitlines()[-1].startswith("✓ score")
    assert text.endswith("30,000 rows\r\n")
    assert json.loads(done.stdout)["rows_in"] == 30_000


def test_ctrl_c_leaves_nothing_behind(store, tmp_path):
    """Interrupted, the command ends with 130, its workers with it, and no part of the output stays."""
    with (tmp_path / "rows.jsonl").open("wb") as file:
        for _ in range(300):
            file.write(as_jsonl(make_rows(1000)))
    command = [
        *(sys.executable, "-m", "litelambda", "score", str(tmp_path / "rows.jsonl"), str(tmp_path / "out.jsonl")),
        *("--model", "tiny_int8", "--store", store, "--workers", "2"),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            while not list(tmp_path.glob(".out.jsonl.*.part")):
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()  # a failure here leaves neither a process nor a pipe to the tests after it
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_chunk(store, tmp_path, monkeypatch, capfd, number):
    """Wherever it falls in the loop, it is taken when no lock is held: after a chunk. A second one does not wait."""
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(make_rows(100)))
    command = ["score", str(tmp_path / "rows.jsonl"), str(tmp_path / "out.jsonl"), "--model", "tiny_int8"]
    submit, reached = Workers.submit, []

    def interrupted_submit(workers, chunk, *, times):
        for _ in range(times):
            signal.raise_signal(number)
        reached.append(times)
        return submit(workers, chunk)

    before = signal.getsignal(number)
    for times in (1, 2):
        monkeypatch.setattr(Workers, "submit", partialmethod(interrupted_submit, times=times))
        assert main([*command, "--store", store]) == 130
        errors = capfd.readouterr().err
        assert errors.endswith("litelambda: interrupted\n")
        assert errors.count("stopping as soon as this chunk is done") == 1
        assert not [path for path in tmp_path.iterdir() if "out" in path.name]
    assert reached == [1]
    assert signal.getsignal(number) is before


def test_an_interrupt_before_the_first_chunk_does_not_wait(store, tmp_path, monkeypatch):
    """While the model is on its way nothing is there to be hurt: the command ends at once."""
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(make_rows(100)))
    reached = []

    def interrupted_load(self, pin):
        signal.raise_signal(signal.SIGINT)
        reached.append(pin)

    monkeypatch.setattr("litelambda_serving.scoring.models.ModelSource.load", interrupted_load)
    files = [str(tmp_path / "rows.jsonl"), str(tmp_path / "out.jsonl")]
    assert main(["score", *files, "--model", "tiny_int8", "--store", store]) == 130
    assert not reached


def test_what_ignores_interrupts_goes_on_ignoring_them(store, tmp_path, monkeypatch):
    """A command behind a script's `&` was told not to mind the terminal's Ctrl-C."""
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(make_rows(100)))
    submit = Workers.submit

    def interrupted_submit(workers, chunk):
        signal.raise_signal(signal.SIGINT)
        return submit(workers, chunk)

    monkeypatch.setattr(Workers, "submit", interrupted_submit)
    files = [str(tmp_path / "rows.jsonl"), str(tmp_path / "out.jsonl")]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert main(["score", *files, "--model", "tiny_int8", "--store", store]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(read_jsonl((tmp_path / "out.jsonl").read_bytes())) == 100


def test_all_cores(store, tmp_path, monkeypatch):
    """Text is scored by as many processes as there are cores; the output is that of one."""
    processes_at_once(monkeypatch)
    monkeypatch.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", 50_000)
    monkeypatch.setattr("litelambda.commands.score.available_cores", lambda: 3)
    rows = make_rows(20_000)
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(rows))
    files = [str(tmp_path / "rows.jsonl"), str(tmp_path / "out.jsonl")]
    assert main(["score", *files, "--model", "tiny_int8", "--store", store]) == 0
    lines = read_jsonl((tmp_path / "out.jsonl").read_bytes())
    assert [line["line"] for line in lines] == list(range(1, 20_001))


@pytest.mark.slow
def test_bench_batch(store, capsys):
    """The benchmark's JSON has a case for arrays and one for text, beside the bare runtime and the usual loop."""
    command = ["bench", "batch", "--model", "tiny_int8", "--store", store, "--runs", "1", "--seconds", "3", "--rows"]
    assert main([*command, "2000", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["cases"].keys() == result["scaling"].keys() == {"npy", "jsonl"}
    for case in result["cases"].values():
        rates = [case[name] for name in ("rows_per_s", "raw_rows_per_s", "usual_rows_per_s")]
        assert min(*rates, case["ratio"], case["peak_rss_mb"]) > 0
        assert case["ratio_to_usual"] == pytest.approx(rates[0] / rates[2], rel=0.5)
    assert main([*command, "2000"]) == 0
    assert "x usual" in capsys.readouterr().out
    assert main([*command, "1"]) == 2
