-- The trace of the request that brought a document, under which it is also processed by a later process.
ALTER TABLE documents ADD COLUMN trace TEXT;
