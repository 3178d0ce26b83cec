"""Every model benchmark runs from its command line to its table, on a small world."""

import asyncio
import os
import subprocess
import sys
import threading
from types import ModuleType

import numpy as np
import pytest
import torch

from benchmarks import (
    cost,
    elastic,
    large_catalogue,
    mfu,
    pretraining,
    serving,
    serving_bound,
    serving_export,
    serving_soak,
    variants,
)
from benchmarks.common import PROJECT
from benchmarks.curves import curves_page
from benchmarks.serving_bound import fixed_rates, highest, holds
from benchmarks.serving_load import LOST, Load, at_rate, closed
from benchmarks.serving_servers import OURS, PLAIN
from benchmarks.serving_soak import EVENTS, HELD, MISSES, evicted
from lrm.errors import SchemaError
from tests.data_worlds import write_data_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return str(write_data_folder(tmp_path_factory.mktemp("world") / "tiny-world"))


@pytest.fixture
def table(tmp_path, monkeypatch, capsys):
    """Run a benchmark in an empty folder and give the cells of its table, the header first."""
    monkeypatch.chdir(tmp_path)

    def run(benchmark: ModuleType, *arguments: str) -> list[list[str]]:
        threads = () if benchmark is serving else (f"--threads={torch.get_num_threads()}",)
        monkeypatch.setattr(sys, "argv", [benchmark.__name__, *arguments, *threads])
        benchmark.main()
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("| ---")]

    return run


def test_arms_finds_that_signals_matter_where_they_decide(table, data):
    small = ["--data", data, "--preset", "tiny", "--seeds", "0", "--epochs", "4"]
    _, soft, none, shuffled = table(variants, *small, "--variants", "soft", "none", "shuffled")
    assert [row[0] for row in (soft, none, shuffled)] == ["`soft`", "`none`", "`shuffled`"]
    assert float(soft[1].split()[0]) > 0.8
    assert float(none[1].split()[0]) < 0.6
    for control in (none, shuffled):
        low = float(control[2].split("[")[1].split(",")[0])
        assert low > 0.1  # the lower bound of soft minus the control


def test_pretraining_reaches_parity_in_fewer_steps(table, data):
    small = ["--data", data, "--preset", "tiny", "--seeds", "0", "--steps", "30", "--every", "5"]
    _, row = table(pretraining, *small)
    assert int(row[3]) < int(row[2])
    assert float(row[8]) > 0.6  # before the first joint step


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("variants", "--data", "nowhere"), "error: 'nowhere' is neither built-in data"),
        (("elastic", "--data", "nowhere"), "error: 'nowhere' is neither built-in data"),
        (("pretraining", "--preset", "huge"), "error: no preset is called 'huge'"),
        (("cost", "--d-model=7"), "error: --d-model 7 must be an even multiple of the 4 heads"),
        (("cost", "--rounds=1"), "error: --rounds 1 is too few for quartiles"),
        (("large_catalogue", "--items=0"), "'0' is not a whole number above 0"),
        (("serving", "--clients=0"), "'0' is not a whole number above 0"),
        (("serving", "--bound-ms=0"), "'0' is not a number above 0"),
        (("serving", "--parts", "all"), "invalid choice: 'all'"),
        (("mfu", "--peak-tflops=0"), "'0' is not a number above 0"),
        (("mfu", "--peak-tflops=nan"), "'nan' is not a number above 0"),
        (("mfu", "--d-model=65"), "--d-model 65 must be an even multiple of its 1 heads"),
        (("mfu", "--steps=1"), "error: --steps 1 is too few for quartiles"),
        (("training_speed", "--data", "nowhere"), "nowhere/events.parquet is missing; prepare it"),
    ],
)
def test_a_wrong_argument_is_one_line_and_leaves_nothing(arguments, message, tmp_path):
    command = [sys.executable, "-m", f"benchmarks.{arguments[0]}", *arguments[1:]]
    path = {"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_elastic_model_is_set_against_one_for_each_budget(table, data, monkeypatch):
    monkeypatch.setattr(elastic, "BUDGETS", (1, 2))
    _, one, two = table(elastic, "--data", data, "--preset", "tiny", "--seeds", "0")
    assert [one[0], two[0]] == ["1", "2"]


def test_text_costs_more_than_soft_tokens(table):
    small = ["--d-model=16", "--layers=1", "--events=5", "--users=2", "--rounds=2"]
    _, *rows = table(cost, *small)
    tokens = {row[0]: int(row[1]) for row in rows}
    assert tokens["soft"] == 5 + 2 + 1
    assert tokens["twice the query tokens"] == 5 + 4 + 1
    assert tokens["signals as text"] > 10 * tokens["soft"]


def test_a_pass_of_a_server_is_measured_by_both_runtimes(table, monkeypatch):
    monkeypatch.setenv("LRM_DEVICE", "cpu")
    for name, values in {"MODELS": ((16, 1, 2),), "EVENTS": (3,), "PASSES": ((1, 0), (2, 3))}.items():
        monkeypatch.setattr(serving_export, name, values)
    header, *rows = table(serving_export, "--rounds=2")
    assert [row[:4] for row in rows] == [["d16 L1", "3", "1", "0"], ["d16 L1", "3", "2", "3"]]
    assert header[4:] == ["torch ms", "onnxruntime ms", "onnxruntime is x times quicker"]
    assert all(float(row[6].split()[0]) > 0 for row in rows)


def test_a_large_catalogue_trains_with_either_kind_of_gradient(table):
    _, *rows = table(large_catalogue, "--items=500", "--events=3000", "--steps=2")
    assert [row[1] for row in rows] == ["sparse", "dense"]
    assert all(float(row[2].split()[0].replace(",", "")) > 0 for row in rows)


def test_utilisation_counts_what_each_token_sees_and_no_more(table):
    """Two users of 5 events, 4 query tokens and a candidate, d16, one layer, hidden width 32, 2,000 items."""
    _, row = table(mfu, "--d-model=16", "--layers=1", "--events=5", "--users=2", "--steps=2", "--peak-tflops=1")
    pairs = (1 + 2 + 3 + 4 + 5) + 4 * (5 + 4) + (5 + 4 + 1)
    layers = 3 * 2 * 20 * (16 * 48 + 16 * 16 + 3 * 16 * 32)
    attention, catalogue = 3 * 4 * 16 * 2 * pairs, 3 * 2 * 2 * (4 + 1) * 16 * 2000
    assert int(row[0]) == 20
    assert [float(cell) * 1e12 for cell in row[1:4]] == pytest.approx([layers, attention, catalogue], rel=1e-3)
    seconds = float(row[4].split()[0]) / 1e3
    assert float(row[5]) * 1e12 == pytest.approx((layers + attention + catalogue) / seconds, rel=0.05)


def test_a_gpu_is_known_by_a_word_of_its_name_and_no_other_is_taken_for_it():
    assert mfu.stated_peak("NVIDIA A100-SXM4-80GB") == 312e12
    for other in ("NVIDIA L40S", "NVIDIA H100 PCIe", "NVIDIA H100 NVL"):
        with pytest.raises(SchemaError, match=f"the peak of '{other}' is not known here"):
            mfu.stated_peak(other)


def test_a_curve_by_decade_has_a_tick_at_each_power_of_ten():
    page = curves_page("t", {"a": [(1_000, 1.0), (100_000, 3.0)]}, across="items", up="ms", by_decade=True)
    assert [page.count(f">{tick}</text>") for tick in ("1,000", "10,000", "100,000", "1,000,000")] == [1, 1, 1, 0]
    assert 'aria-label="ms by items"' in page


@pytest.mark.parametrize(
    ("in_time", "late", "refused", "expected"),
    [(99, 1, 0, True), (99, 0, 1, True), (98, 1, 1, False), (0, 0, 0, False)],
)
def test_a_rate_is_held_if_nearly_all_requests_are_answered_in_time(in_time, late, refused, expected):
    load = Load({200: in_time + late, 429: refused}, np.array([0.2] * in_time + [0.201] * late), 1.0)
    assert holds(load, 200.0) is expected


def test_the_search_halves_what_is_left_and_asks_twice_for_a_rate_that_was_not_held():
    asked = []

    def is_held(rate: float) -> bool:
        asked.append(rate)
        return rate <= 70 and asked != [50.0]  # the very first load meets a pause

    assert highest(is_held, 100.0, steps=4, tries=2) == 68.75
    assert asked == [50, 50, 75, 75, 62.5, 68.75]
    assert highest(lambda _: False, 100.0, steps=4, tries=2) == 0


def test_fixed_rates_are_shares_of_what_the_other_servers_reach():
    assert fixed_rates([700, 50, 20]) == [10, 16, 25, 40]
    assert fixed_rates([700]) == [350, 560]
    assert fixed_rates([700, 0.1]) == [1]


def test_evictions_are_those_decoded_that_neither_an_event_nor_the_memory_explains():
    since = {MISSES: 10.0, HELD: 0.0}
    assert evicted(since, {MISSES: 130.0, HELD: 1850.0 * 40, EVENTS: 5.0}) == 120 - 40 - 5
    assert evicted(since, {MISSES: 30.0, HELD: 1850.0 * 40}) == 0


@pytest.fixture
def rude():
    """The port of a server that ends every connection after two answers, and every fifth question without one."""
    answers, started, loop = [], threading.Event(), asyncio.new_event_loop()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            try:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
            except EOFError:
                break
            answers.append(len(answers) % 5 == 4)
            if answers[-1]:
                break
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    async def listen() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        started.set()
        await stopped.wait()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.1)

    ports: list[int] = []
    stopped = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(listen(),))
    thread.start()
    started.wait(10)
    yield ports[0]
    loop.call_soon_threadsafe(stopped.set)
    thread.join(10)
    loop.close()


def test_a_load_survives_connections_that_end_and_counts_what_was_not_answered(rude):
    load = at_rate(rude, "/", lambda _: {}, rate=100, seconds=0.5)
    assert load.statuses == {200: 40, LOST: 10}
    assert len(load.latencies) == 40
    again = closed(rude, "/", lambda _: {}, clients=2, seconds=0.2)
    assert again.statuses[200] > again.statuses[LOST] > 0


@pytest.fixture
def shop(monkeypatch):
    """The arguments of a tiny shop, one peer, a short search, and memories smaller still."""
    for name, value in {"STEPS": 2, "TRIES": 1}.items():
        monkeypatch.setattr(serving_bound, name, value)
    for name, value in {"CANDIDATES": (1,), "CANDIDATE_ROUNDS": 1}.items():
        monkeypatch.setattr(serving, name, value)
    for name, value in {"MEMORY_MB": 1, "STRANGERS": 2, "PARTS": 2}.items():
        monkeypatch.setattr(serving_soak, name, value)
    return [
        "--items=300",
        "--users=300",
        "--clients=8",
        "--seconds=1",
        "--preset=tiny",
        "--bound-ms=5000",
        "--peers",
        OURS,
        PLAIN,
    ]


def test_serving_is_set_against_a_peer_decodes_for_those_not_at_hand_and_is_soaked(table, shop):
    rows = table(serving, *shop, "--soak=1000", "--parts", "bound", "candidates", "soak")
    (bound, ours, plain), (_, kept, decoded), (header, *soak) = rows[:3], rows[3:6], rows[6:]
    assert [ours[0], plain[0]] == [OURS, PLAIN]
    assert ours[1].endswith("(1.0)")
    assert bound[-2] == "p99 within 5000 ms, a second"
    assert float(ours[-2].replace(",", "")) > float(plain[-2].replace(",", "")) > 0
    assert [kept[0], decoded[0]] == ["1", "1, history decoded first"]
    assert float(decoded[4].split()[0]) > 1.2
    told = [dict(zip(header, line, strict=True)) for line in soak]
    assert [line["after"] for line in told] == ["warm-up", "50%", "swap", "100%"]
    assert int(told[-1]["requests so far"].replace(",", "")) > 1000
    assert int(told[1]["evicted, at least"].replace(",", "")) > 0
    assert 0 < int(told[1]["events"]) < int(told[-1]["events"])
    steady = [line for line in told if line["after"] != "swap"]
    assert all(0 < float(line["histories MB"]) <= 1 for line in steady)
    assert [line["not answered"] for line in steady] == ["0"] * 3
