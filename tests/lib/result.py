"""What every takeover says at its end: the lines of the steps, and the result as JSON, with all of its figures."""

import json
import re

PHASES = ["kill", "unmount", "flash", "verify", "data", "head", "efi"]
KEYS = ["outcome", "bytes", "chunks", "zero_chunks", "repaired_chunks", "backup", "log", "report", "efi", "attempts", "seconds",
        "peak_kib", "heap_bytes", "heap_sealed"]
SECONDS = r"\((\d+\.\d{3}) s\)"
# One a phase, in order, but for the one that places files where there are any to place.
STEPS = [rf"\] (?:every process has ended|warning: some processes do not end: going on) {SECONDS}$",
         rf"\] /dev/\S+ is free {SECONDS}$",
         rf"\] flashed {SECONDS}; reading back$",
         rf"\] verified: every chunk is as it was scanned {SECONDS}$",
         rf"\] the head is written and read back: the disk boots {SECONDS}$"]


def check_result_line(line, outcome):
    """The result, with every figure in it that there must be."""
    result = json.loads(line)
    assert list(result) == KEYS, result
    assert result["outcome"] == outcome, result
    written = outcome in ("done", "failed")
    for key in ("bytes", "chunks", "zero_chunks"):
        assert (result[key] > 0) == written, result
    assert result["attempts"] >= 1 and result["heap_sealed"] is True, result
    assert list(result["seconds"]) == PHASES, result
    # Ending and unmounting may take no time at all where there is nothing to end or unmount.
    reached = PHASES[:{"done": 6, "pretended": 2}.get(outcome, 0)]
    assert all(result["seconds"][phase] > 0 for phase in reached[2:] if phase != "data"), result
    peak = result["peak_kib"]
    assert list(peak) == ["total", "pid1", "worker", "ramfs"], result
    assert peak["total"] == peak["pid1"] + peak["worker"] + peak["ramfs"], result
    assert peak["pid1"] > 100 and peak["ramfs"] > 20, result
    # A worker that was killed could not say.
    assert peak["worker"] > 1000 or not reached, result
    return result


def check_steps(text, outcome):
    """Each phase has its line, with how long it took."""
    for step in STEPS[:{"done": 5, "pretended": 2}.get(outcome, 0)]:
        assert re.search(step, text, re.M), (step, text)
