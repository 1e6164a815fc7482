-- One file of history: what was received on one day, or in a part of it. Times are microseconds since the Unix epoch.
-- Later versions only ever add. Read it with the sqlite3 command, also while the sidecar writes.

CREATE TABLE reached (              -- one row: how far the sidecar's journal is stored
    serial    INTEGER NOT NULL,     -- counts the transactions over all files: the greatest one is the latest
    position  TEXT                  -- journal:segment:offset; everything before it is here or in an earlier file
);

CREATE TABLE chunks (               -- the lines themselves, as they were sent
    id        INTEGER PRIMARY KEY,
    first     INTEGER NOT NULL,     -- the least and the greatest ts in it
    last      INTEGER NOT NULL,
    received  INTEGER NOT NULL,
    messages  INTEGER NOT NULL,
    worst     INTEGER NOT NULL,     -- the greatest level of its events, 0 debug to 4 critical; -1 where it has none
    data      BLOB NOT NULL         -- lines ended by newlines; zlib, or zstd where it begins with 28 b5 2f fd
);
CREATE INDEX chunks_last ON chunks (last);

-- Which chunks have messages of a trace, of a service, or with a value of the context keys that `index` names.
CREATE TABLE trace_chunks (trace_id TEXT, chunk INTEGER, PRIMARY KEY (trace_id, chunk)) WITHOUT ROWID;
CREATE TABLE service_chunks (service TEXT, chunk INTEGER, PRIMARY KEY (service, chunk)) WITHOUT ROWID;
CREATE TABLE context_chunks (key TEXT, value TEXT, chunk INTEGER, PRIMARY KEY (key, value, chunk)) WITHOUT ROWID;
CREATE TABLE indexed (key TEXT, since INTEGER NOT NULL, until INTEGER);    -- for which chunks that is known of a key

CREATE TABLE jobs (
    trace_id       TEXT,
    job_id         TEXT,
    kind           TEXT NOT NULL,       -- its id without what differs from run to run
    service        TEXT NOT NULL,       -- that reported its progress last
    percent        REAL NOT NULL,
    status         TEXT NOT NULL,       -- what it said itself
    state          TEXT NOT NULL,       -- running, stalled, gone, done, failed, cancelled, unfinished
    first          INTEGER NOT NULL,
    last_progress  INTEGER NOT NULL,
    shape          TEXT NOT NULL,       -- JSON: when it was at 5 %, 10 %, … 100 % first
    continues      TEXT,                -- the earlier file that has a row of it too; this one has all that one has
    PRIMARY KEY (trace_id, job_id)
) WITHOUT ROWID;
CREATE INDEX jobs_last ON jobs (last_progress, trace_id, job_id);
CREATE INDEX jobs_id ON jobs (job_id);
CREATE INDEX jobs_kind ON jobs (kind, last_progress);
CREATE INDEX jobs_continue ON jobs (continues) WHERE continues IS NOT NULL;

CREATE TABLE traces (                   -- the sidecar's own summaries: one of each part of a trace that ended
    trace_id  TEXT,
    part      INTEGER,
    first     INTEGER NOT NULL,
    last      INTEGER NOT NULL,
    status    TEXT NOT NULL,
    errors    INTEGER NOT NULL,
    services  TEXT NOT NULL,            -- JSON
    counts    TEXT NOT NULL,            -- JSON: messages by type, and events by level
    PRIMARY KEY (trace_id, part)
) WITHOUT ROWID;

CREATE TABLE spans (                    -- duration and status are NULL while one is open
    trace_id   TEXT,
    span_id    TEXT,
    parent_id  TEXT NOT NULL,
    name       TEXT NOT NULL,
    service    TEXT NOT NULL,
    start      INTEGER NOT NULL,
    duration   INTEGER,
    status     TEXT,
    PRIMARY KEY (trace_id, span_id)
) WITHOUT ROWID;

CREATE TABLE series (                   -- the metrics of a trace, summed up
    trace_id  TEXT,
    service   TEXT,
    name      TEXT,
    unit      TEXT,
    count     INTEGER NOT NULL,
    total     REAL NOT NULL,
    least     REAL NOT NULL,
    greatest  REAL NOT NULL,
    PRIMARY KEY (trace_id, service, name, unit)
) WITHOUT ROWID;

CREATE TABLE hours (                    -- hour: since the epoch; what: a type of message, or level.LEVEL of events
    hour     INTEGER,
    service  TEXT,
    what     TEXT,
    count    INTEGER NOT NULL,
    PRIMARY KEY (hour, service, what)
) WITHOUT ROWID;

CREATE TABLE errors (                   -- events of level error and critical; pattern: the message without its digits
    hour      INTEGER,
    service   TEXT,
    pattern   TEXT,
    count     INTEGER NOT NULL,
    first     INTEGER NOT NULL,
    last      INTEGER NOT NULL,
    message   TEXT NOT NULL,            -- of the newest one
    trace_id  TEXT NOT NULL,
    PRIMARY KEY (hour, service, pattern)
) WITHOUT ROWID;
