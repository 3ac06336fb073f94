-- Vectors of the next embedding model, made while those of the present one still answer.
CREATE TABLE vector_next (
    tenant INTEGER NOT NULL REFERENCES tenant (id),
    chunk INTEGER NOT NULL,
    components BLOB NOT NULL,
    PRIMARY KEY (tenant, chunk)
) STRICT;

-- The model they are of; no row while nothing is made.
CREATE TABLE reindex (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    model TEXT,
    dimension INTEGER,
    CHECK ((model IS NULL) = (dimension IS NULL))
) STRICT;

-- Where the chunks have gone for good, if they have.
CREATE TABLE moved (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    place TEXT NOT NULL
) STRICT;
