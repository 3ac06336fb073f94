-- Large values of states, each once a thread: rows whose kind is 4 and more keep stubs in their payload, which name them.
CREATE TABLE checkpoint_values (
    thread INTEGER NOT NULL,
    name   BLOB    NOT NULL, -- a digest of the value, or what a store that seals has called it
    body   BLOB    NOT NULL, -- a byte that says whether the rest is compressed, and the rest
    PRIMARY KEY (thread, name)
) STRICT, WITHOUT ROWID;

-- Which rows name which. A value that is no longer named goes in the same transaction.
CREATE TABLE checkpoint_value_uses (
    thread INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    name   BLOB    NOT NULL,
    PRIMARY KEY (thread, seq, name)
) STRICT, WITHOUT ROWID;

DROP TRIGGER checkpoint_thread_deleted;
CREATE TRIGGER checkpoint_thread_deleted AFTER DELETE ON checkpoint_threads BEGIN
    DELETE FROM checkpoint_rows       WHERE thread = OLD.number;
    DELETE FROM checkpoint_values     WHERE thread = OLD.number;
    DELETE FROM checkpoint_value_uses WHERE thread = OLD.number;
    DELETE FROM checkpoint_records    WHERE thread = OLD.number;
    DELETE FROM checkpoint_branches   WHERE thread = OLD.number;
    DELETE FROM checkpoint_tags       WHERE thread = OLD.number;
    DELETE FROM checkpoint_outbox     WHERE thread = OLD.number;
END;
