"""`python -m tests.system.fuzz`: fuzzes all targets and prints a line for each (`make fuzz`).

Every target runs in its own process, one after another, so that a crash of the interpreter counts
as a fault; libFuzzer also ends its process.
"""

import argparse
import importlib.util
import os
import re
import sys
import tempfile
import time
import traceback
from contextlib import AbstractContextManager, nullcontext
from typing import IO, Any

GUIDED = importlib.util.find_spec("atheris") is not None


def main() -> int:
    """Run all targets, or the given one."""
    given = argparse.ArgumentParser(prog="python -m tests.system.fuzz", description=__doc__)
    given.add_argument(
        "--inputs", type=int, default=1_000_000, help="number of inputs over all targets"
    )
    given.add_argument("--seed", type=int, default=0)
    given.add_argument("--target", help="run only this target")
    given.add_argument(
        "--plain", action="store_true", help="mutation only, even if atheris is installed"
    )
    args = given.parse_args()
    guided = GUIDED and not args.plain
    with _watched(guided):
        from tests.system.fuzz.targets import TARGETS, engine
    engine()  # load it once, before the forks
    how = "guided by coverage (atheris)" if guided else "by mutation only"
    print(f"{args.inputs:,} inputs, seed {args.seed}, {how}", flush=True)
    chosen = [target for target in TARGETS if args.target in (None, target.name)]
    return every(chosen, args.inputs, args.seed, guided)


def _watched(guided: bool) -> AbstractContextManager[Any]:
    """Instruments the modules imported within the block for coverage."""
    if not guided:
        return nullcontext()
    import atheris

    watched: AbstractContextManager[Any] = atheris.instrument_imports(
        include=["stream_app", "xl3m_core"], enable_loader_override=False
    )
    return watched


def every(targets: list[Any], inputs: int, seed: int, guided: bool) -> int:
    """Run the targets, each with its share of the inputs; the exit code."""
    began, total, failed = time.perf_counter(), 0, list[str]()
    share = inputs / sum(target.weight for target in targets)
    for target in targets:
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            code = _forked(target, int(share * target.weight) + 1, seed, guided, output)
            output.seek(0)
            text = output.read()
        line = re.search(rf"^{re.escape(target.name)} .*?([\d,]+) inputs.*$", text, re.M)
        if code or not line:
            failed.append(target.name)
            print(f"{target.name}: FAILED ({code})\n{text[-4000:]}", flush=True)
        else:
            total += int(line[1].replace(",", ""))
            print(line[0], flush=True)
    print(f"{total:,} inputs in {time.perf_counter() - began:.0f} s; faults: {failed or 'none'}")
    return 1 if failed else 0


def _forked(target: Any, inputs: int, seed: int, guided: bool, output: IO[str]) -> int:
    """Run one target in a forked process that writes to `output`; its exit code."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    try:
        _one(target, inputs, seed, guided)
    except BaseException as end:  # libFuzzer ends in a SystemExit
        if isinstance(end, SystemExit) and not end.code:
            os._exit(0)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _one(target: Any, inputs: int, seed: int, guided: bool) -> None:
    from tests.system.fuzz.fuzzing import Tally, by_coverage, by_mutation
    from tests.system.fuzz.targets import REFUSALS

    tally = Tally(target.name, target.call, REFUSALS)
    if guided:
        by_coverage(target, tally, inputs, seed, lambda: print(tally, flush=True))
    else:
        by_mutation(target, tally, inputs, seed)
        print(tally, flush=True)


if __name__ == "__main__":
    sys.exit(main())
