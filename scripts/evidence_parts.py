"""The parts of scripts/evidence: what each runs for a unit, and how it reads what came of it.

A part adds up what its units found. Only what a unit needs beside its figures, the state file of the binary `faults`,
lies under target/evidence.
"""

import dataclasses
import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Callable

CARGO_DENY, CARGO_FUZZ, SCHEMATHESIS = "0.20.2", "0.13.2", "4.32.5"
RELEASE = ("cargo", "test", "--release", "-q", "-p")
LOOPS = 6
# The exit codes of `faults` and `promises`: nothing wrong, something wrong, could not be run. Any other is a crash.
ENDED = (0, 1, 2)


class NotRun(Exception):
    """A unit could not be run at all, which says nothing about the library."""


@dataclasses.dataclass
class Found:
    """What a unit came to."""

    done: int = 0  # of the goal
    rounds: int = 0
    wrong: int = 0
    counts: dict = dataclasses.field(default_factory=dict)
    text: list | None = None  # lines that replace those before
    each: list | None = None  # one figure for each unit
    total: bool = False  # these are sums already, over all units
    left: str = ""  # why it is not tried again in this run


@dataclasses.dataclass
class Part:
    name: str
    what: str
    goal: int
    unit: str  # what `done` and `goal` count
    small: int  # how much the first unit does
    step: int  # and every other
    run: Callable


def counted(words):
    """What `key=number ...` says."""
    return {key: int(number) for key, number in re.findall(r"([\w-]+)=(\d+)", words)}


def row(text, name):
    """The last line `name: rounds=.. wrong=..` of the binary `faults`, as rounds, wrong and the other counts."""
    lines = re.findall(rf"^{re.escape(name)}: (rounds=\d+ wrong=\d+[^;\n]*)", text, re.MULTILINE)
    if not lines:
        raise NotRun(f"no line of {name} was printed")
    counts = counted(lines[-1])
    return counts.pop("rounds"), counts.pop("wrong"), counts


def faults_binary(unit):
    unit.prepare("cargo", "build", "--release", "-q", "-p", "watchkeep-testkit", "--bin", "faults", "--bin", "promises")
    return "target/release/faults"


def fault(name):
    def run(unit):
        binary, state = faults_binary(unit), f"target/evidence/faults-{unit.tree}"
        code, output = unit.run(binary, name, "--rounds", str(unit.done + unit.size), "--state", state)
        if code not in ENDED:
            return Found(wrong=1)
        rounds, wrong, counts = row(output, name)
        # What was wrong stays, also where the state file was lost.
        return Found(rounds, rounds, max(wrong, unit.figures.get("wrong", 0)), counts, total=True)

    return run


def workloads(root):
    source = (root / "crates/watchkeep-testkit/src/faults/workload.rs").read_text(encoding="utf-8")
    return re.findall(r'Workload::\w+ => "([\w-]+)"', source)


def run_io(unit):
    workload = workloads(unit.root)[unit.done % len(workloads(unit.root))]
    code, output = unit.run(faults_binary(unit), "io", "--workload", workload)
    if code not in ENDED:
        return Found(wrong=1)
    rounds, wrong, counts = row(output, "io")
    return Found(1, rounds, wrong, counts | {f"of-{workload}": rounds})


def run_promises(unit):
    faults_binary(unit)
    first = unit.done + 1
    code, output = unit.run("target/release/promises", "--seeds", f"{first}..{first + unit.size}")
    if code not in ENDED:
        return Found(wrong=1)
    summary = re.search(r"^(\d+) rounds: (.*); (\d+) violations, (\d+) faults$", output, re.MULTILINE)
    model = re.search(r"(\d+) operations against the model", output)
    if not summary or not model:
        if code == 1:
            return Found(wrong=1)
        raise NotRun("no table was printed")
    counts = {what.replace(" ", "-"): int(number) for number, what in re.findall(r"(\d+) ([a-z ]+)", summary[2])}
    counts["operations-against-the-model"] = int(model[1])
    for promise, streams, events, _ in re.findall(r"^([a-z_]+) +(\d+) +(\d+) +(\d+)$", output, re.MULTILINE):
        counts |= {f"{promise}-streams": int(streams), f"{promise}-events": int(events)}
    before, text = unit.figures.get("counts", {}), ["| promise | streams | events |", "|---|---:|---:|"]
    for name in [name.removesuffix("-streams") for name in counts if name.endswith("-streams")]:
        sums = [counts[key] + before.get(key, 0) for key in (f"{name}-streams", f"{name}-events")]
        text.append(f"| `{name}` | {sums[0]:,} | {sums[1]:,} |")
    return Found(unit.size, int(summary[1]), max(int(summary[3]) + int(summary[4]), code), counts, text)


def evidence_lines(output):
    """The lines `evidence: <name> rounds=.. wrong=.. key=..` of tests, summed."""
    rounds, wrong, counts = 0, 0, Counter()
    for name, words in re.findall(r"evidence: ([\w-]+) (rounds=\d+ wrong=\d+[^\n]*)", output):
        found = counted(words)
        counts[name] += found["rounds"]
        rounds, wrong = rounds + found.pop("rounds"), wrong + found.pop("wrong")
        counts.update({f"{name}-{key}": number for key, number in found.items()})
    return rounds, wrong, dict(counts)


# How scripts/etcd and scripts/machines end where what they need is not to be had.
LACKING = 3


def tests(target, name, package="watchkeep-testkit", features=(), within=()):
    """The tests of that name, at the size of the unit, within another command. A unit that fails has not been done."""
    program = (*RELEASE, package, *features, "--test", target)

    def run(unit):
        unit.prepare(*program, "--no-run")
        # Without this the tests print no line of figures.
        scale = {"WATCHKEEP_TEST_SCALE": str(unit.size)}
        code, output = unit.run(*within, *program, "--", name, "--nocapture", "--test-threads=1", **scale)
        rounds, wrong, counts = evidence_lines(output)
        passed = re.search(r"^test result: ok\. ([1-9]\d*) passed", output, re.MULTILINE)
        if code == LACKING and within and not re.search(r"^test result:", output, re.MULTILINE):
            raise NotRun(f"{within[0]} is not to be had here")
        if not code and not passed:
            raise NotRun("no test was run")
        counts["tests"] = int(passed[1]) if passed else 0
        return Found(0 if code else unit.size, rounds, max(wrong, 1 if code else 0), counts)

    return run


def run_suite(unit):
    unit.prepare("cargo", "test", "-q", "--all-features", "-p", "watchkeep", "--test", "it", "--no-run")
    code, output = unit.run("scripts/conformance", "--cluster")
    rounds, wrong, counts = evidence_lines(output)
    if not code and not rounds:
        raise NotRun("no test was run")
    return Found(0 if code else unit.size, rounds, max(wrong, 1 if code else 0), counts)


# The current etcd.
ETCD = "v3.6.16"


def run_current(unit):
    """All that runs on a cluster, once, on a current etcd instead of the system's."""
    within = ("scripts/etcd", ETCD)
    code, output = unit.run(*within, "scripts/conformance", "--cluster")
    if code == LACKING:
        raise NotRun(f"etcd {ETCD} cannot be built here")
    rounds, wrong, counts = evidence_lines(output)
    whole = ("scripts/cluster", "cargo", "test", "-q", "--all-features", "--test", "cluster", "--")
    skipped = [word for name in ("room", "apart", "paused") for word in ("--skip", name)]
    failed, output = unit.run(*within, *whole, "--test-threads=1", *skipped)
    passed = sum(map(int, re.findall(r"^test result: ok\. (\d+) passed", output, re.MULTILINE)))
    if not failed and not passed:
        raise NotRun("no test was run")
    found = Found(0 if code or failed else unit.size, rounds, max(wrong, 1 if code or failed else 0), counts)
    found.counts["tests"] = passed
    return found


# The checker, the tests and the number of schedules: a few, all of loom's, many.
INTERLEAVINGS = [("shuttle", "interleavings", 2_000), ("loom", "joining", None), ("shuttle", "interleavings", 20_000)]


def test_binary(unit, *flags, features=()):
    """The library's unit tests, built with flags for itself alone."""
    command = ["cargo", "rustc", "-q", "-p", "watchkeep", *features, "--lib", "--profile", "test"]
    printed = unit.prepare(*command, "--message-format=json-render-diagnostics", "--", *flags)
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return [line["executable"] for line in lines if line.get("executable")][-1]


def run_interleavings(unit):
    checker, name, schedules = INTERLEAVINGS[unit.done % len(INTERLEAVINGS)]
    flags = ["--cfg", checker, "--cfg", "watchkeep_portable", "-C", "opt-level=2"]
    binary = os.path.relpath(test_binary(unit, *flags, features=["--all-features"]), unit.root)
    # Another seed for each unit, and none that the ordinary tests draw from.
    drawn = {"WATCHKEEP_SCHEDULES": str(schedules), "WATCHKEEP_SEED": str(1_000 + unit.done)}
    environment = drawn if schedules else {"WATCHKEEP_PREEMPTIONS": "3"}
    threads = ["--test-threads=1"] if checker == "loom" else []
    code, output = unit.run(binary, name, "--nocapture", *threads, **environment)
    rounds, counts, models = 0, Counter(), set()
    line = rf"{checker}: ([^\n]*?)(, at random|, with \d+ interruptions)?: (\d+) schedules"
    for model, how, count in re.findall(line, output):
        models.add(model)
        counts[checker + {"": "", ", at random": "-at-random"}.get(how, "-interrupted")] += int(count)
        rounds += int(count)
    if not models and not code:
        raise NotRun(f"{checker} printed no schedules")
    counts[f"{checker}-models"] = len(models)
    return Found(0 if code else 1, rounds, 1 if code else 0, dict(counts))


def cargo_tool(unit, name, version):
    code, _ = unit.run("cargo", name, "--version")
    if code:
        unit.prepare("cargo", "install", f"cargo-{name}", "--locked", "--version", version)
    unit.seconds = 0.0


def fuzz_targets(root):
    return sorted(path.stem for path in (root / "fuzz/targets").glob("*.rs"))


def run_fuzz(unit):
    """A minute of one target. What it finds new is thrown away; an input that it fails on is kept by cargo-fuzz."""
    cargo_tool(unit, "fuzz", CARGO_FUZZ)
    # libFuzzer needs flags of the compiler that the stable one takes only so.
    stable = {"RUSTC_BOOTSTRAP": "1"}
    unit.prepare("cargo", "fetch", "--locked", "--manifest-path", "fuzz/Cargo.toml")
    unit.prepare("cargo", "fuzz", "build", **stable)
    targets = fuzz_targets(unit.root)
    target = targets[unit.done % len(targets)]
    with tempfile.TemporaryDirectory(dir=unit.work) as scratch:
        # The first folder is written to.
        folders = [os.path.relpath(scratch, unit.root), f"fuzz/corpus/{target}"]
        code, output = unit.run("cargo", "fuzz", "run", target, *folders, "--", "-max_total_time=60", **stable)
    inputs = re.search(r"^Done ([1-9]\d*) runs in ", output, re.MULTILINE)
    artifact = re.search(r"fuzz/artifacts/\S+", output)
    if code and artifact:
        unit.again = f"RUSTC_BOOTSTRAP=1 cargo fuzz run {target} {artifact[0]}"
    if not code and not inputs:
        raise NotRun("libFuzzer did not say how many inputs it tried")
    rounds = int(inputs[1]) if inputs else 0
    return Found(0 if code else 1, rounds, 1 if code else 0, {target: rounds} if rounds else {})


def mutants(root):
    loader = importlib.machinery.SourceFileLoader("mutants", str(root / "scripts/mutants"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("mutants", loader))
    loader.exec_module(module)
    return module.MUTANTS


def run_mutants(unit):
    mutant = mutants(unit.root)[unit.done]
    code, output = unit.run("scripts/mutants", str(mutant.number))
    said = re.search(rf"^mutant +{mutant.number}: (caught|SURVIVED)", output, re.MULTILINE)
    if not said:
        raise NotRun(f"scripts/mutants {mutant.number} ended with {code}")
    test = mutant.test.split()[-1]
    text = unit.figures.get("text") or ["| bug | test | result |", "|---|---|---|"]
    text = [*text, f"| {mutant.what} | `{test}` | {said[1].lower()} |"]
    return Found(1, 1, 1 if code else 0, {"caught": 1 if said[1] == "caught" else 0}, text)


def run_features(unit):
    metadata = json.loads(unit.prepare("cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"))
    [features] = [package["features"] for package in metadata["packages"] if package["name"] == "watchkeep"]
    features = sorted(features.keys() - {"default"})
    chosen = [[]] + [["--features", feature] for feature in features]
    clippy = ("cargo", "clippy", "-q", "-p", "watchkeep")
    portable = ("--cfg", "watchkeep_portable")
    commands = [(*clippy, "--no-default-features", *choice, "--", "-D", "warnings") for choice in chosen]
    commands.append(("cargo", "test", "-q", "-p", "watchkeep-bench"))
    commands.append((*clippy, "--all-targets", "--", "-D", "warnings", *portable))
    for command in commands:
        if unit.run(*command)[0]:
            return Found(0, 1, 1, {})
    code, output = unit.run(os.path.relpath(test_binary(unit, *portable), unit.root), "signal")
    passed = re.search(r"(\d+) passed", output)
    if not code and (not passed or passed[1] == "0"):
        raise NotRun("there are no tests of the portable signal")
    return Found(0 if code else 1, 1, 1 if code else 0, {"builds": len(commands), "features": len(features)})


def run_licences(unit):
    cargo_tool(unit, "deny", CARGO_DENY)
    # cargo-deny reads the whole tree, the crates for other systems included.
    unit.prepare("cargo", "fetch", "--locked")
    code, _ = unit.run("cargo", "deny", "--offline", "check", "licenses", "bans", "sources")
    return Found(0 if code else 1, 1, 1 if code else 0)


def run_advisories(unit):
    cargo_tool(unit, "deny", CARGO_DENY)
    code, output = unit.run("cargo", "deny", "check", "advisories")
    if code and "advisories FAILED" not in output:
        wrong = unit.figures.get("wrong", 0)
        return Found(0, wrong, wrong, left="the database of advisories was not reached", text=["not reached"], total=True)
    return Found(0 if code else 1, 1, 1 if code else 0, text=["checked"])


def run_latency(unit):
    seconds, repeats = ("2", "3") if unit.figures else ("1", "1")
    unit.prepare("cargo", "build", "--release", "-q", "-p", "watchkeep-bench")
    command = ("cargo", "run", "--release", "-q", "-p", "watchkeep-bench", "--", "processes")
    code, output = unit.run(*command, "--seconds", seconds, "--repeats", repeats)
    tables = re.findall(r"(?:^\|[^\n]*\n)+", output, re.MULTILINE)
    if code or not tables:
        raise NotRun(f"the benchmark ended with {code}")
    counts = {"seconds": int(seconds), "repeats": int(repeats), "cores": os.cpu_count()}
    rounds = unit.done + 1
    return Found(rounds, rounds, 0, counts, "\n".join(tables).rstrip("\n").split("\n"), total=True)


def run_fanout(unit):
    if not shutil.which("redis-server"):
        raise NotRun("redis-server is not there, and nothing to compare with (Debian: apt-get install redis-server)")
    seconds, repeats = ("10", "3") if unit.figures else ("3", "1")
    unit.prepare("cargo", "build", "--release", "-q", "-p", "watchkeep-cli")
    command = ("scripts/fanout", "--bin", "target/release/watchkeep", "--seconds", seconds, "--rounds", repeats)
    code, output = unit.run(*command)
    line = r"^(watchkeep|Redis pub/sub) +([\d,]+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.-]+) "
    rows = re.findall(line, output, re.MULTILINE)
    if code or not rows:
        raise NotRun(f"scripts/fanout ended with {code}")
    text = ["| server | clients | events/s | CPU µs a delivery | p99 ms | kB a client |", "|---|---:|---:|---:|---:|---:|"]
    text += ["| " + " | ".join(cells) + " |" for cells in rows]
    counts = {"seconds": int(seconds), "repeats": int(repeats), "cores": os.cpu_count()}
    rounds = unit.done + 1
    return Found(rounds, rounds, 0, counts, text, total=True)


def hub(unit, *command):
    """A script that starts `watchkeep serve`, and prints lines of evidence."""
    unit.prepare("cargo", "build", "--release", "-q", "-p", "watchkeep-cli")
    code, output = unit.run(*command, "--bin", "target/release/watchkeep")
    rounds, wrong, counts = evidence_lines(output)
    if code not in (0, 1) or not counts:
        raise NotRun(f"{command[0]} ended with {code}")
    return rounds, max(wrong, code), counts


def run_schema(unit):
    """Two minutes of requests made up from the document that the server serves."""
    venv = unit.work / "schemathesis"
    if not (venv / "bin/st").exists():
        unit.prepare("python3", "-m", "venv", str(venv))
        unit.prepare(str(venv / "bin/pip"), "install", "--quiet", f"schemathesis=={SCHEMATHESIS}")
    st = os.path.relpath(venv / "bin/st", unit.root)
    rounds, wrong, counts = hub(unit, "scripts/schema", "--st", st, "--seconds", "120", "--seed", str(unit.done + 1))
    return Found(0 if wrong else 1, rounds, wrong, counts)


def run_churn(unit):
    """Adds up the samples of all units, which are kept beside the figures, to one verdict."""
    minutes, samples = unit.done + unit.size, f"target/evidence/churn-{unit.tree}.samples"
    command = ("scripts/churn", "--minutes", str(minutes), "--samples", samples)
    rounds, wrong, counts = hub(unit, *command)
    return Found(unit.done if wrong else minutes, rounds, max(wrong, unit.figures.get("wrong", 0)), counts, total=True)


def run_crowd(unit):
    rounds, wrong, counts = hub(unit, "scripts/crowd")
    return Found(unit.done + 1, rounds, wrong, counts, total=True)


def run_busy(unit):
    command, each = ("scripts/test", "test", "races"), unit.figures.get("each", [])
    try:
        unit.prepare(*command)  # alone, so that everything is built
        with unit.loaded(LOOPS):
            code, output = unit.run(*command)
    except NotRun:  # not even alone
        code, output = 1, unit.output
    wrong = unit.figures.get("wrong", 0) + (1 if code else 0)
    if code:
        kept = next(log for n in range(1, 10_000) if not (log := unit.work / f"busy-{n}.log").exists())
        kept.write_text(output, encoding="utf-8")
        unit.again = f"scripts/evidence {unit.part.name}"
        unit.output += f"\nthe whole output: {kept.relative_to(unit.root)}\n"
        return Found(0, unit.figures.get("rounds", 0) + 1, wrong, each=[], total=True)
    each = [*each, round(unit.seconds)]
    counts = {"least": min(each), "median": round(statistics.median(each)), "most": max(each), "loops": LOOPS}
    return Found(len(each), unit.figures.get("rounds", 0) + 1, wrong, counts, each=each, total=True)


def parts(root):
    return [
        Part("power", "the power goes at any moment, `Full`", 100_000, "cuts", 1_000, 10_000, fault("power")),
        Part("sync", "syncs fail, then the power goes, `Full`", 10_000, "cuts", 1_000, 3_000, fault("sync")),
        Part("relaxed", "the power goes at any moment, `Relaxed`", 10_000, "cuts", 1_000, 3_000, fault("relaxed")),
        Part("flips", "a bit of a closed file flips", 100_000, "flips", 1_000, 10_000, fault("flips")),
        Part(
            "wal", "a bit of the write-ahead log flips, or it is cut off",
            10_000, "flips and cuts", 1_000, 3_000, fault("wal"),
        ),
        Part("kill", "processes on one file are killed", 300, "kills", 15, 45, fault("kill")),
        Part("ext4", "the power goes under a real ext4, `Full`", 200, "cuts", 10, 30, fault("ext4")),
        Part("ext4-relaxed", "the power goes under a real ext4, `Relaxed`", 200, "cuts", 10, 30, fault("ext4-relaxed")),
        Part("io", "every single operation of SQLite fails", len(workloads(root)), "workloads", 1, 1, run_io),
        Part("promises", "generated workloads against the promises of the watch", 2_000, "seeds", 20, 20, run_promises),
        Part(
            "callers", "calls of concurrent callers are linearizable",
            10, "times the usual size", 1, 10, tests("it", "endurance::linearizable::"),
        ),
        Part(
            "histories", "histories of concurrent callers, before two checkers",
            10, "times the usual size", 1, 10, tests("it", "endurance::histories::"),
        ),
        Part(
            "churn", "watchers come and go beside a writer",
            10, "times the usual size", 1, 10, tests("it", "endurance::churn::"),
        ),
        Part(
            "processes", "several processes on one file",
            10, "times the usual size", 1, 10, tests("it", "processes::"),
        ),
        Part("consumers", "courses of named consumers", 10, "times the usual size", 1, 10, tests("it", "consumers::")),
        Part("model", "generated operations against the model", 10, "times the usual size", 1, 10, tests("it", "model::")),
        Part(
            "library", "the library's own tests, with the loops of those that race made longer",
            5, "times the usual size", 1, 5, tests("it", "", "watchkeep"),
        ),
        Part(
            "hub", "clients of a hub that stall, are cut off and come back, over both wires",
            50, "times the usual size", 1, 10, tests("it", "promises::clients_that_"),
        ),
        Part(
            "lies", "a cluster whose members lie to three stores at once, in every way",
            200, "seeds", 2, 10,
            tests("cluster", "lies_of_all_kinds", features=("--features", "etcd"), within=("scripts/cluster",)),
        ),
        Part(
            "machines", "a cluster of machines whose links are cut and whose disks are full, with writers and watchers on it",
            5, "times each fault", 1, 1,
            tests("cluster", "apart::", features=("--features", "etcd"), within=("scripts/machines",)),
        ),
        Part(
            "paused", "a process on a cluster that stands still for a minute, in the midst of its writes and its watch",
            3, "runs", 1, 1,
            tests("cluster", "paused::a_process", features=("--features", "etcd"), within=("scripts/cluster",)),
        ),
        Part("current", f"all that runs on a cluster, on etcd {ETCD}", 1, "runs", 1, 1, run_current),
        Part("suite", "conformance on a cluster: the library's own tests there", 2, "runs", 1, 1, run_suite),
        Part("soak", "everything at once for some time", 10, "times 12 seconds", 1, 10, tests("evidence", "soak::")),
        Part("expiry", "expiry by the machine's clock", 5, "runs", 1, 1, tests("evidence", "expiry")),
        Part(
            "interleavings", "interleavings of threads, under two model checkers",
            len(INTERLEAVINGS), "runs", 1, 1, run_interleavings,
        ),
        Part("fuzz", "made-up bytes for every fuzz target", 10 * len(fuzz_targets(root)), "minutes", 1, 1, run_fuzz),
        Part(
            "mutants", "bugs that are put in, each caught by a test",
            len(mutants(root)), "mutants", 1, 1, run_mutants,
        ),
        Part("features", "the library with each feature alone, and without eventfd", 1, "runs", 1, 1, run_features),
        Part("licences", "licences and sources of the dependencies", 1, "runs", 1, 1, run_licences),
        Part("advisories", "known vulnerabilities of the dependencies", 1, "runs", 1, 1, run_advisories),
        Part("latency", "from a commit in one process to the event in another", 2, "runs", 1, 1, run_latency),
        Part("schema", "made-up requests against the served OpenAPI document", 5, "times two minutes", 1, 1, run_schema),
        Part("crowd", "as many clients of a hub at once as there are descriptors, and a server that is full", 1, "runs", 1, 1, run_crowd),
        Part(
            "hub-churn", "clients of a hub that come and go in every way, for a long time",
            480, "minutes", 20, 24, run_churn,
        ),
        Part("fanout", "one event to many clients of a hub, beside Redis", 2, "runs", 1, 1, run_fanout),
        Part(
            "busy", "`scripts/test test races` green in a row, while six busy loops run beside it",
            20, "runs", 1, 1, run_busy,
        ),
    ]
