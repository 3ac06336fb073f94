-- Large values of states, each once a thread.
CREATE TABLE checkpoint_values (
    thread BIGINT NOT NULL,
    name   BYTEA  NOT NULL, -- a digest of the value, or what a store that seals has called it
    body   BYTEA  NOT NULL, -- a byte that says whether the rest is compressed, and the rest; the server compresses it
    PRIMARY KEY (thread, name)
);

-- Set where the payload, or all parts, are stubs: the values that they name, each once. A value that no checkpoint of its
-- thread names any more goes in the transaction that took the last one away.
ALTER TABLE checkpoints ADD COLUMN value_names BYTEA[];

CREATE OR REPLACE FUNCTION checkpoint_thread_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM checkpoints         WHERE thread = OLD.number;
    DELETE FROM checkpoint_values   WHERE thread = OLD.number;
    DELETE FROM checkpoint_records  WHERE thread = OLD.number;
    DELETE FROM checkpoint_branches WHERE thread = OLD.number;
    DELETE FROM checkpoint_tags     WHERE thread = OLD.number;
    DELETE FROM checkpoint_outbox   WHERE thread = OLD.number;
    RETURN NULL;
END $$;
