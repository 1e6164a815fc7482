"""A scene whose sidecar writes to a PostgreSQL as well, through a network that fails, and what is done to the two."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from daemon import until
from postgres import Database, held
from proxy import Proxy, at_random
from scene import Scene

Fault = Callable[["DatabaseScene"], None]


class DatabaseScene(Scene):
    """`between` is the network from the sidecar to the database."""

    def __init__(self, directory: Path, database: Database, seed: int = 0) -> None:
        self.database = database
        self.between = Proxy(database.server.socket)
        dsn = f"host=127.0.0.1 port={self.between.port} dbname={database.name} user=wafermon"
        super().__init__(directory, dsn, database.dsn, seed=seed)

    def __enter__(self) -> DatabaseScene:
        self.between.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__(*_)
        self.between.__exit__(*_)

    def calm(self) -> None:
        self.between.rule = lambda pair, chunk, from_client: "pass"
        super().calm()


def restart(scene: DatabaseScene) -> None:
    """the database stops as if it had crashed, and starts again"""
    scene.pause(1)
    scene.database.server.restart(immediate=True)


def cuts(scene: DatabaseScene) -> None:
    """connections to the database are cut before and behind a fifth of all chunks: so between a commit and its reply"""
    cuts = scene.between.cuts
    scene.between.rule = at_random(0.2, seed=scene.dice.randrange(1 << 30))
    until(lambda: scene.between.cuts > cuts + 20, "cuts", 60)


def lost_replies(scene: DatabaseScene) -> None:
    """each batch is committed, and its reply lost with the connection"""
    cuts = scene.between.cuts
    scene.between.rule = lambda pair, chunk, from_client: "pass" if from_client or pair.up < 100_000 else "cut"
    until(lambda: scene.between.cuts > cuts + 5, "lost replies", 60)


def silence(scene: DatabaseScene) -> None:
    """the database takes connections and statements and answers none, for 10 s"""
    with scene.database.server.frozen():
        time.sleep(10)


def slow(scene: DatabaseScene) -> None:
    """the tables are locked for most of the time"""
    until(lambda: scene.database.query("SELECT 1 FROM pg_tables WHERE tablename = 'events'"), "tables")
    dice = random.Random(scene.dice.randrange(1 << 30))
    for _ in range(5):
        with held(scene.database, "LOCK TABLE events"):
            time.sleep(dice.uniform(0.2, 0.8))
        time.sleep(0.1)


def all_at_once(scene: DatabaseScene) -> None:
    """SIGKILL of the sidecar, a crash of the database, and cuts between them"""
    scene.between.rule = at_random(0.05, seed=scene.dice.randrange(1 << 30))
    scene.pause()
    scene.database.server.stop(immediate=True)
    scene.restart()
    scene.database.server.start()
    scene.pause()
    scene.restart()


DATABASE: dict[str, Fault] = {
    "crash": restart, "cuts": cuts, "lost replies": lost_replies, "silence": silence, "locked": slow, "all at once": all_at_once,
}  # fmt: skip
