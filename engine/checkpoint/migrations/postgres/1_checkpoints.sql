-- The same layout as in SQLite. A thread's full name (tenant, thread, namespace) stands here once; the rows that hang on it
-- carry its number. Every statement that reaches a row by the number takes it from this table by the full name, tenant
-- first, and an identity never gives a number twice.
--
-- Texts that come from outside may hold the character NUL, which PostgreSQL does not take: the store writes it, and the
-- character behind it, as two others, so that the order stays. Byte order everywhere: COLLATE "C".
CREATE TABLE checkpoint_threads (
    number    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    epoch     BIGINT NOT NULL,
    last      BIGINT NOT NULL DEFAULT 0, -- number of the newest checkpoint of any branch
    head      BIGINT,                    -- where the next commit grows
    run       UUID,
    tenant    TEXT COLLATE "C" NOT NULL,
    thread    TEXT COLLATE "C" NOT NULL,
    namespace TEXT COLLATE "C" NOT NULL,
    branch    TEXT COLLATE "C" NOT NULL DEFAULT 'main', -- the branch that the thread is on
    graph     TEXT COLLATE "C",
    status    TEXT COLLATE "C",
    error     TEXT,
    UNIQUE (tenant, thread, namespace)
    -- Each commit writes a thread's row anew: with room on its page no index has to be told.
) WITH (fillfactor = 70);

-- What to resume after a crash.
CREATE INDEX checkpoint_threads_running ON checkpoint_threads (graph, run)
    WHERE status = 'running' AND namespace = '';

-- Epochs. One sequence for all threads, so that a thread made anew after its deletion does not give an old worker's epoch
-- again; a sequence is no row, so that nobody waits for anybody.
CREATE SEQUENCE checkpoint_epochs;

CREATE TABLE checkpoints (
    thread        BIGINT  NOT NULL,
    seq           BIGINT  NOT NULL,
    parent        BIGINT,
    step          BIGINT  NOT NULL,
    created_at    BIGINT  NOT NULL, -- microseconds since 1970
    state_version BIGINT  NOT NULL,
    id            UUID    NOT NULL,
    run           UUID,
    fingerprint   UUID    NOT NULL,
    snapshot      BOOLEAN NOT NULL, -- true: the whole state, false: a delta over the parent's
    source        TEXT    NOT NULL,
    frontier      BYTEA   NOT NULL,
    payload       BYTEA   NOT NULL,
    PRIMARY KEY (thread, seq)
);

CREATE INDEX checkpoints_by_id ON checkpoints (thread, id);

CREATE TABLE checkpoint_records (
    thread BIGINT NOT NULL,
    seq    BIGINT NOT NULL,
    task   TEXT COLLATE "C" NOT NULL,
    kind   TEXT COLLATE "C" NOT NULL,
    key    TEXT COLLATE "C" NOT NULL,
    body   BYTEA  NOT NULL,
    PRIMARY KEY (thread, seq, task, kind, key)
);

CREATE TABLE checkpoint_branches (
    thread BIGINT NOT NULL,
    seq    BIGINT NOT NULL,
    name   TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (thread, name)
);

CREATE TABLE checkpoint_outbox (
    thread BIGINT NOT NULL,
    id     UUID   NOT NULL,
    topic  TEXT COLLATE "C" NOT NULL,
    body   BYTEA  NOT NULL,
    PRIMARY KEY (thread, id)
);

CREATE INDEX checkpoint_outbox_by_topic ON checkpoint_outbox (topic, id);

-- A trigger and not foreign keys, which would look the thread up and lock it at every insert. Its statements see what was
-- committed while the deletion waited for a writer; one statement with several parts would not.
CREATE FUNCTION checkpoint_thread_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM checkpoints         WHERE thread = OLD.number;
    DELETE FROM checkpoint_records  WHERE thread = OLD.number;
    DELETE FROM checkpoint_branches WHERE thread = OLD.number;
    DELETE FROM checkpoint_outbox   WHERE thread = OLD.number;
    RETURN NULL;
END $$;

CREATE TRIGGER checkpoint_thread_deleted AFTER DELETE ON checkpoint_threads
    FOR EACH ROW EXECUTE FUNCTION checkpoint_thread_deleted();
