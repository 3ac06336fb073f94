-- Rows say what differs. Most checkpoints of a run share its id, the graph's fingerprint, the state's version, the first
-- twelve bytes of their names and often what is to run next with an earlier one of the run: their origin, which alone
-- says these. Numbers are distances, small ones. The view below reads them back; what is read is what was written.
--
-- There is no index by name: it was a quarter of the file, and a name is looked up inside one thread.
DROP TRIGGER checkpoint_thread_deleted;
DROP INDEX checkpoints_by_id;

CREATE TABLE checkpoint_rows (
    thread        INTEGER NOT NULL,
    seq           INTEGER NOT NULL,
    parent        INTEGER NOT NULL, -- so many numbers before this one; 0: it has none
    origin        INTEGER NOT NULL, -- so many numbers before this one; 0: it is one itself
    kind          INTEGER NOT NULL, -- 0: a delta over the parent's state, 1: the whole state, 2: a list of parts
    source        INTEGER NOT NULL, -- 0 step, 1 input, 2 update, 3 fork
    step          INTEGER NOT NULL,
    created_at    INTEGER NOT NULL, -- microseconds since 1970, or since the origin's
    state_version INTEGER,          -- only an origin says these three
    run           BLOB,
    fingerprint   BLOB,
    id            BLOB    NOT NULL, -- 16 bytes, or the last 4 where the others are the origin's
    frontier      BLOB,             -- NULL where it is the origin's
    payload       BLOB    NOT NULL, -- last, so that reading the rest leaves a long one on its overflow pages
    PRIMARY KEY (thread, seq)
) STRICT, WITHOUT ROWID;

INSERT INTO checkpoint_rows
SELECT thread, seq, coalesce(seq - parent, 0), 0, snapshot,
       CASE source WHEN 'step' THEN 0 WHEN 'input' THEN 1 WHEN 'update' THEN 2 ELSE 3 END,
       step, created_at, state_version, run, fingerprint, id, frontier, payload
FROM checkpoints;
DROP TABLE checkpoints;

CREATE VIEW checkpoints AS
SELECT c.thread AS thread,
       c.seq AS seq,
       CASE c.parent WHEN 0 THEN NULL ELSE c.seq - c.parent END AS parent,
       CASE length(c.id) WHEN 4 THEN CAST(substr(o.id, 1, 12) || c.id AS BLOB) ELSE c.id END AS id,
       c.step AS step,
       CASE c.source WHEN 0 THEN 'step' WHEN 1 THEN 'input' WHEN 2 THEN 'update' ELSE 'fork' END AS source,
       o.run AS run,
       c.kind AS kind,
       o.fingerprint AS fingerprint,
       o.state_version AS state_version,
       CASE c.origin WHEN 0 THEN c.created_at ELSE o.created_at + c.created_at END AS created_at,
       coalesce(c.frontier, o.frontier) AS frontier,
       c.payload AS payload
FROM checkpoint_rows c JOIN checkpoint_rows o ON o.thread = c.thread AND o.seq = c.seq - c.origin;

-- Names under which checkpoints are kept.
CREATE TABLE checkpoint_tags (
    thread INTEGER NOT NULL,
    name   TEXT    NOT NULL,
    seq    INTEGER NOT NULL,
    PRIMARY KEY (thread, name)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER checkpoint_thread_deleted AFTER DELETE ON checkpoint_threads BEGIN
    DELETE FROM checkpoint_rows     WHERE thread = OLD.number;
    DELETE FROM checkpoint_records  WHERE thread = OLD.number;
    DELETE FROM checkpoint_branches WHERE thread = OLD.number;
    DELETE FROM checkpoint_tags     WHERE thread = OLD.number;
    DELETE FROM checkpoint_outbox   WHERE thread = OLD.number;
END;
