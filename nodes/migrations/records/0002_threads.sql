-- What is known of a thread besides its checkpoints. The key begins with the tenant.
CREATE TABLE threads (
  client_id TEXT NOT NULL,
  id TEXT NOT NULL,                     -- a UUID
  graph TEXT,                           -- the graph that runs on it, once one has
  metadata TEXT NOT NULL,               -- a JSON object, its owner's
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  PRIMARY KEY (client_id, id)
) STRICT, WITHOUT ROWID;
