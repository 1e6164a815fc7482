"""The second of three: learns from WORK/train.csv which dies fail, and writes WORK/model.txt: train.py WORK

Logistic regression by gradient descent over the whole set; a line of the model is a feature's name and its weight. The
same data makes the same model.
"""

from __future__ import annotations

import csv
import math
import os
import sys
from pathlib import Path

from monitoring_sdk import MonitoringSDK

FEATURES = ("edge", "z_vth", "z_idsat", "z_leak")
ROUNDS, RATE, SHRINKAGE = 400, 1.0, 1e-3
"""Steps of the descent, their size, and how much large weights cost."""

Row = tuple[list[float], int]


def read(path: Path) -> list[Row]:
    """A one for the intercept and the features of each die, and whether it fails."""
    with path.open() as file:
        return [([1.0, *(float(die[name]) for name in FEATURES)], int(die["fails"])) for die in csv.DictReader(file)]


def probability(weights: list[float], values: list[float]) -> float:
    return 1 / (1 + math.exp(-sum(weight * value for weight, value in zip(weights, values, strict=True))))


def loss(weights: list[float], rows: list[Row]) -> float:
    """The mean surprise at what happened, in nats."""
    return -sum(math.log(abs(1 - fails - probability(weights, values))) for values, fails in rows) / len(rows)


def step(weights: list[float], rows: list[Row]) -> list[float]:
    slope = [SHRINKAGE * weight for weight in weights]
    for values, fails in rows:
        error = (probability(weights, values) - fails) / len(rows)
        for place, value in enumerate(values):
            slope[place] += error * value
    return [weight - RATE * change for weight, change in zip(weights, slope, strict=True)]


def train(sdk: MonitoringSDK, job: str, rows: list[Row]) -> list[float]:
    weights = [0.0] * (1 + len(FEATURES))
    for done in range(1, ROUNDS + 1):
        weights = step(weights, rows)
        if done % (ROUNDS // 8) == 0:
            sdk.log_metric("loss", loss(weights, rows), "nat", {"round": done})
            sdk.log_progress(job, 40 + 40 * done / ROUNDS, "training")
    return weights


def main(work: Path) -> None:
    job = os.environ["WAFERMON_TRACE_ID"]
    with MonitoringSDK("model-training") as sdk:
        with sdk.span("train", tags={"rounds": ROUNDS}):
            rows = read(work / "train.csv")
            sdk.log_event("info", "data read", {"dies": len(rows), "fail": sum(fails for _, fails in rows)})
            weights = train(sdk, job, rows)
            lines = [f"{name} {weight!r}\n" for name, weight in zip(("intercept", *FEATURES), weights, strict=True)]
            (work / "model.txt").write_text("".join(lines))
            sdk.log_event("info", "model written", dict(zip(("intercept", *FEATURES), weights, strict=True)))
        sdk.log_resource()
        print(f"model-training: {sdk.get_stats()['called']} messages", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
