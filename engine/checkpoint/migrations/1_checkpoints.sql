-- A thread's full name (tenant, thread, namespace) stands here once; the rows that hang on it carry its number, which
-- keeps them small. The number means nothing outside this file: every statement that reaches a row by it takes it from
-- this table by the full name, tenant first, and AUTOINCREMENT never gives a number twice, so that a row left behind by
-- a deleted thread could not come to belong to another tenant.
CREATE TABLE checkpoint_threads (
    number    INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant    TEXT    NOT NULL,
    thread    TEXT    NOT NULL,
    namespace TEXT    NOT NULL,
    epoch     INTEGER NOT NULL,
    last      INTEGER NOT NULL DEFAULT 0, -- number of the newest checkpoint of any branch
    head      INTEGER,                    -- where the next commit grows
    run       BLOB,
    graph     TEXT,
    status    TEXT,
    error     TEXT,
    UNIQUE (tenant, thread, namespace)
) STRICT;

-- What to resume after a crash.
CREATE INDEX checkpoint_threads_running ON checkpoint_threads (graph, run)
    WHERE status = 'running' AND namespace = '';

-- The newest epoch given to any thread. One counter for all, so that a thread made anew after its deletion does not
-- give an old worker's epoch again.
CREATE TABLE checkpoint_epochs (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    last INTEGER NOT NULL
) STRICT;
INSERT INTO checkpoint_epochs (only, last) VALUES (1, 0);

CREATE TABLE checkpoints (
    thread        INTEGER NOT NULL,
    seq           INTEGER NOT NULL,
    parent        INTEGER,
    id            BLOB    NOT NULL,
    step          INTEGER NOT NULL,
    source        TEXT    NOT NULL,
    run           BLOB,
    snapshot      INTEGER NOT NULL CHECK (snapshot IN (0, 1)), -- 1: the whole state, 0: a delta over the parent's
    fingerprint   BLOB    NOT NULL,
    state_version INTEGER NOT NULL,
    created_at    INTEGER NOT NULL, -- microseconds since 1970
    frontier      BLOB    NOT NULL,
    payload       BLOB    NOT NULL, -- last, so that reading the rest leaves a long one on its overflow pages
    PRIMARY KEY (thread, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX checkpoints_by_id ON checkpoints (thread, id);

CREATE TABLE checkpoint_records (
    thread INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    task   TEXT    NOT NULL,
    kind   TEXT    NOT NULL,
    key    TEXT    NOT NULL,
    body   BLOB    NOT NULL,
    PRIMARY KEY (thread, seq, task, kind, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoint_branches (
    thread INTEGER NOT NULL,
    name   TEXT    NOT NULL,
    seq    INTEGER NOT NULL,
    PRIMARY KEY (thread, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoint_outbox (
    thread INTEGER NOT NULL,
    id     BLOB    NOT NULL,
    topic  TEXT    NOT NULL,
    body   BLOB    NOT NULL,
    PRIMARY KEY (thread, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX checkpoint_outbox_by_topic ON checkpoint_outbox (topic, id);

-- A trigger and not foreign keys: these would hold only on connections that switch them on, and would be looked up at
-- every insert.
CREATE TRIGGER checkpoint_thread_deleted AFTER DELETE ON checkpoint_threads BEGIN
    DELETE FROM checkpoints         WHERE thread = OLD.number;
    DELETE FROM checkpoint_records  WHERE thread = OLD.number;
    DELETE FROM checkpoint_branches WHERE thread = OLD.number;
    DELETE FROM checkpoint_outbox   WHERE thread = OLD.number;
END;
