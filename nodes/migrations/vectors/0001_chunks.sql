-- A tenant's knowledge base: what was fixed at the first ingest, and the totals that rank its chunks.
CREATE TABLE tenant (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    language TEXT NOT NULL,
    model TEXT,
    dimension INTEGER,
    chunks INTEGER NOT NULL DEFAULT 0,
    terms INTEGER NOT NULL DEFAULT 0,
    next_chunk INTEGER NOT NULL DEFAULT 0,
    CHECK ((model IS NULL) = (dimension IS NULL))
) STRICT;

-- Chunks as they are shown. `id` counts up inside the tenant and is never used twice. `terms` lists what the chunk is
-- indexed under, so that it can be taken out again whatever later versions of the analysis would make of its text.
CREATE TABLE chunk (
    tenant INTEGER NOT NULL REFERENCES tenant (id),
    id INTEGER NOT NULL,
    document TEXT NOT NULL,
    chunk_index INTEGER NOT NULL,
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    length INTEGER NOT NULL,
    terms TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX chunk_id ON chunk (tenant, id);
CREATE UNIQUE INDEX chunk_position ON chunk (tenant, document, chunk_index);

-- The inverted index: where a term occurs, packed for 256 neighbouring chunk ids a row. How many chunks hold a term is
-- the number of its entries, and so cannot drift from them.
CREATE TABLE posting (
    tenant INTEGER NOT NULL REFERENCES tenant (id),
    term TEXT NOT NULL,
    block INTEGER NOT NULL,
    entries BLOB NOT NULL,
    PRIMARY KEY (tenant, term, block)
) STRICT, WITHOUT ROWID;

-- Dense vectors, scaled to length one, as little-endian f32.
CREATE TABLE vector (
    tenant INTEGER NOT NULL REFERENCES tenant (id),
    chunk INTEGER NOT NULL,
    components BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX vector_chunk ON vector (tenant, chunk);
