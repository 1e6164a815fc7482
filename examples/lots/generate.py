"""Makes lots of wafer measurements as a tester writes them, some of them faulty: generate.py FOLDER

Every file is one delivery of one lot: comment lines that say what it is, a table with a row a die, and the SHA-256 of
all that on the last line. The same seed makes the same files. ``manifest.json`` says what was made, and which fault
each file has; the programs that read the lots don't look at it, those who check them do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
from pathlib import Path

COLUMNS = "wafer,x,y,vth_v,idsat_ua,ileak_na,bin"
PRODUCTS = {"A7": (0.42, 610.0, 1.2), "B2": (0.36, 720.0, 2.0)}
"""Threshold voltage in volts, drive current in microamperes, leakage in nanoamperes: what each is meant to be."""
RADIUS = 4
"""Of a wafer, in dies."""
GOOD_BIN, BAD_BIN = 1, 7
FAULTS = ("short_row", "bad_number", "wrong_checksum", "duplicate")
NO_NUMBERS = ("-.--", "0.4.1", "1.2e", "#REF", "")


def wafer_rows(rng: random.Random, wafer: int, product: str) -> list[list[str]]:
    """One wafer. Leakage and distance from the centre decide, with some luck, which dies fail."""
    vth, idsat, ileak = PRODUCTS[product]
    rows = []
    for x in range(-RADIUS, RADIUS + 1):
        for y in range(-RADIUS, RADIUS + 1):
            edge = math.hypot(x, y) / RADIUS
            if edge > 1:
                continue
            leak = rng.gauss(0, 0.5) + (3 if rng.random() < 0.01 else 0)  # now and then a die that stands out
            shift = rng.gauss(0.02 * edge, 0.015)
            fails = rng.random() < 1 / (1 + math.exp(-(10 * edge + 10 * leak - 13)))
            values = (f"{vth + shift:.4f}", f"{idsat * (1 - 1.5 * shift):.1f}", f"{ileak * math.exp(leak):.3f}")
            rows.append([str(wafer), str(x), str(y), *values, str(BAD_BIN if fails else GOOD_BIN)])
    return rows


def lot_text(rng: random.Random, lot: str, product: str, wafers: int, fault: str | None) -> str:
    """The content of a file. A faulty one has one row, or the last line, that is not what it should be."""
    rows = [row for wafer in range(1, wafers + 1) for row in wafer_rows(rng, wafer, product)]
    row = rng.choice(rows)
    if fault == "short_row":
        del row[rng.randrange(2, len(row)) :]
    elif fault == "bad_number":
        row[rng.randrange(3, 6)] = rng.choice(NO_NUMBERS)
    table = "\n".join([COLUMNS, *(",".join(row) for row in rows)])
    text = f"# lot: {lot}\n# product: {product}\n# wafers: {wafers}\n{table}\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    if fault == "wrong_checksum":
        digest = digest[::-1]
    return f"{text}# sha256: {digest}\n"


def generate(folder: Path, lots: int, seed: int, wafers: int, faults: dict[str, int], prefix: str) -> None:
    """Write `lots` files and the manifest. Raises ValueError where there are more faults than lots."""
    repeated = faults.get("duplicate", 0)
    kinds: list[str | None] = [kind for kind in FAULTS if kind != "duplicate" for _ in range(faults.get(kind, 0))]
    good = lots - repeated - len(kinds)
    if good < max(repeated, 0) or (repeated and not good):
        raise ValueError(
            f"{lots} lots are too few for {sum(faults.values())} faulty ones: each duplicate repeats a good one"
        )
    rng = random.Random(seed)
    kinds += [None] * good
    rng.shuffle(kinds)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {}
    for number, fault in enumerate(kinds, 1):
        lot, product = f"{prefix}{number:03}", rng.choice(sorted(PRODUCTS))
        text = lot_text(rng, lot, product, wafers, fault)
        (folder / f"{lot}.csv").write_text(text)
        manifest[f"{lot}.csv"] = {"lot": lot, "product": product, "dies": text.count("\n") - 5, "fault": fault}
    for name in rng.sample([name for name, made in manifest.items() if not made["fault"]], repeated):
        again = name.replace(".csv", "_2.csv")  # sorts behind the first one
        (folder / again).write_text((folder / name).read_text())
        manifest[again] = {**manifest[name], "fault": "duplicate"}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def fault_counts(text: str) -> dict[str, int]:
    """``short_row:1,duplicate:2``; empty: none."""
    counts = {}
    for part in filter(None, text.split(",")):
        kind, _, count = part.partition(":")
        if kind not in FAULTS or not count.isdigit():
            raise argparse.ArgumentTypeError(f"{part!r} is not KIND:COUNT with a kind of {', '.join(FAULTS)}")
        counts[kind] = int(count)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes lots of wafer measurements, some of them faulty.")
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("--lots", type=int, default=12, help="files in all (12)")
    parser.add_argument("--wafers", type=int, default=3, help="wafers of a lot (3)")
    parser.add_argument("--seed", type=int, default=2026, help="another one makes other lots (2026)")
    parser.add_argument("--prefix", default="N26A", help="of the lots' names (N26A)")
    parser.add_argument(
        "--faults",
        type=fault_counts,
        default=",".join(f"{kind}:1" for kind in FAULTS),
        help="how many of which kind (%(default)s)",
    )
    arguments = vars(parser.parse_args())
    try:
        generate(**arguments)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
