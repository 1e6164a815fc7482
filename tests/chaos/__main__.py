"""Breaks things at random, again and again, and counts after each round: `make chaos`.

    python tests/chaos [--time 600] [--seed N]

A round is three faults out of all there are, to one sidecar that writes to files twice and to a database, with streams and
programs of every language under way; then everything is healed, drained and counted. The seed that is printed makes the same
choices again, though not the same moments. Ends with 1 at the first message that is missing, doubled or torn, and keeps the
directory for whoever looks into it.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from database import DATABASE, DatabaseScene
from faults import NETWORK, SIDECAR
from postgres import Postgres
from programs import LANGUAGES, available, programs_of

ROUNDS_A_SCENE = 10
"""Then all begins anew: what is stored is read in each round."""


def faults() -> dict[str, Callable[[DatabaseScene], None]]:
    """All there are by a name of their own."""
    every: dict[str, Callable[[DatabaseScene], None]] = {}
    for title, some in (("sidecar", SIDECAR), ("network", NETWORK), ("database", DATABASE)):
        every |= {f"{title}: {name}": fault for name, fault in some.items()}
    for language in LANGUAGES:
        available(language)
        for name, fault in programs_of(language).items():
            every[f"{language}: {name}"] = partial(fault, language=language)  # type: ignore[call-arg]
    return every


def scene_of_rounds(server: Postgres, dice: random.Random, until: float, done: Counter[str]) -> None:
    """Raises whatever is found wrong; the directory stays then."""
    every = faults()
    directory = Path(tempfile.mkdtemp(prefix="wafermon-chaos-"))
    database = server.create()
    try:
        with DatabaseScene(directory, database, seed=dice.randrange(1 << 30)) as scene:
            for number in range(ROUNDS_A_SCENE):
                chosen = dice.sample(list(every), 3)
                print(f"{time.strftime('%H:%M:%S')} {', '.join(chosen)}", flush=True)
                for name in chosen:
                    every[name](scene)
                    done[name] += 1
                verdicts = scene.settle()
                done["rounds"] += 1
                told = "; ".join(f"{v.store}: {v.stored:,} stored, {v.acked:,} acknowledged" for v in verdicts)
                print(f"         {told}", flush=True)
                if time.monotonic() > until or number + 1 == ROUNDS_A_SCENE:
                    done["messages"] += verdicts[0].stored
                    break
                scene.load()
    except BaseException:
        print(f"what is left of it: {directory}", file=sys.stderr)
        raise
    database.drop()
    shutil.rmtree(directory)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__.split("\n")[0])
    parser.add_argument("--time", type=float, default=600, help="seconds after which no round is begun (600)")
    parser.add_argument(
        "--seed", type=int, default=random.randrange(1 << 30), help="of an earlier run, to choose alike"
    )
    options = parser.parse_args()
    print(f"seed {options.seed}")
    dice = random.Random(options.seed)
    begun, done = time.monotonic(), Counter[str]()
    server = Postgres()
    try:
        server.start()
        while time.monotonic() - begun < options.time:
            scene_of_rounds(server, dice, begun + options.time, done)
    except AssertionError as error:
        print(f"seed {options.seed}: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    finally:
        server.remove()
    rounds, messages = done.pop("rounds"), done.pop("messages")
    for name, times in sorted(done.items()):
        print(f"{times:6d} {name}")
    print(
        f"{rounds} rounds in {time.monotonic() - begun:.0f} s, {messages:,} messages: each acknowledged one stored once"
    )


if __name__ == "__main__":
    main()
