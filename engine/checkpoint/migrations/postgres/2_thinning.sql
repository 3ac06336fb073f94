-- Names that keep checkpoints from being thinned out.
CREATE TABLE checkpoint_tags (
    thread BIGINT NOT NULL,
    seq    BIGINT NOT NULL,
    name   TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (thread, name)
);

-- Set where a checkpoint lost its parent: the snapshot and the deltas that it stood on, oldest first, and its own at last.
-- The payload is empty then.
ALTER TABLE checkpoints ADD COLUMN parts BYTEA[];

-- How many times checkpoints were taken out. A commit that waits for a thinning reads its other tables as they were before:
-- by this number, in the row that it waits for, it knows.
ALTER TABLE checkpoint_threads ADD COLUMN thinnings BIGINT NOT NULL DEFAULT 0;

CREATE OR REPLACE FUNCTION checkpoint_thread_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM checkpoints         WHERE thread = OLD.number;
    DELETE FROM checkpoint_records  WHERE thread = OLD.number;
    DELETE FROM checkpoint_branches WHERE thread = OLD.number;
    DELETE FROM checkpoint_tags     WHERE thread = OLD.number;
    DELETE FROM checkpoint_outbox   WHERE thread = OLD.number;
    RETURN NULL;
END $$;
