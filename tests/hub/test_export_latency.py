"""The latency table."""

import time

import pytest
import torch
from toys import resnet

from headshare_hf.hub import LatencyEntry, export_program, latency_table


class Slow(torch.nn.Module):
    """Takes a known time, and notes its turn."""

    def __init__(self, name, seconds, turns):
        super().__init__()
        self.name, self.seconds, self.turns = name, seconds, turns
        self.eval()

    def forward(self, pixel_values):
        self.turns.append((self.name, tuple(pixel_values.shape)))
        time.sleep(self.seconds)


def test_ratios_times_and_turns():
    turns = []
    entries = {
        "teacher": LatencyEntry(Slow("teacher", 0.02, turns), [6, 4], 1),
        "student": LatencyEntry(Slow("student", 0.005, turns), 8),
    }
    table = latency_table(entries, (1, 2), repeats=3, warmup=1)
    assert [(row.name, row.batch_size) for row in table.rows] == [
        ("teacher", 1),
        ("student", 1),
        ("teacher", 2),
        ("student", 2),
    ]
    # In turn, not one after the other.
    one, two = ("teacher", (1, 1, 6, 4)), ("student", (1, 3, 8, 8))
    assert turns[:8] == [one, two] * 4 and turns[8] == ("teacher", (2, 1, 6, 4)) and len(turns) == 16
    for row in table.rows:
        expected = 20 if row.name == "teacher" else 5
        assert expected <= row.low_ms <= row.median_ms <= row.high_ms
        assert row.images_per_second == pytest.approx(1e3 * row.batch_size / row.median_ms)
    assert table.rows[0].speedup == 1 and 1 < table.rows[1].speedup < 4.5
    assert table.threads == torch.get_num_threads() and table.repeats == 3 and table.to_dict()["rows"][0]["name"]


def test_the_table_in_markdown():
    model = resnet().eval()
    entries = {"a": LatencyEntry(model, 16), "b": LatencyEntry(model, 8)}
    text = latency_table(entries, (1,), repeats=2, measured="this part").to_markdown()
    lines = text.splitlines()
    assert lines[0] == "| network | batch | ms, median [quartiles] | images/s | speed-up over a |"
    assert lines[2].startswith("| a | 1 | ") and lines[2].endswith(" | 1.00 |") and lines[3].startswith("| b | 1 | ")
    assert all(line.count("|") == 6 for line in lines[:4])
    assert "thread" in lines[5] and "cores" in lines[5] and "2 repetitions" in lines[5]
    assert lines[5].endswith("Measured: this part.")


def test_a_loaded_program_can_be_measured(tmp_path):
    path = export_program(resnet(), tmp_path / "model.pt2", image_size=16).path
    entry = LatencyEntry(torch.export.load(path).module(), 16)
    assert latency_table({"program": entry}, (3,), repeats=1, warmup=0).rows[0].median_ms > 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_sizes": ()}, "nothing to measure"),
        ({"batch_sizes": (0,)}, r"`batch_sizes` are \(0,\)"),
        ({"repeats": 0}, "`repeats` 0"),
        ({"warmup": -1}, "`warmup` -1"),
    ],
)
def test_wrong_options_say_what_to_do(options, message):
    entry = LatencyEntry(resnet().eval(), 16)
    with pytest.raises(ValueError, match=message):
        latency_table({"a": entry}, **options)


def test_wrong_entries_say_what_to_do():
    with pytest.raises(ValueError, match="nothing to measure"):
        latency_table({})
    with pytest.raises(ValueError, match="student is in training mode"):
        latency_table({"student": LatencyEntry(resnet().train(), 16)})
