-- Clients, documents, the chat log and usage of the embedded store. Columns that mean the same as those of the shared
-- PostgreSQL schema have its names. Times are UTC text of fixed width, so that they sort as text.
-- No foreign key leads to clients: chat and documents may be kept here while the clients live in another database.

CREATE TABLE clients (
  id TEXT PRIMARY KEY NOT NULL,
  public_api_key TEXT NOT NULL UNIQUE,
  allowed_domains TEXT NOT NULL,        -- JSON array
  status TEXT NOT NULL,                 -- active | paused | disabled
  tier TEXT NOT NULL,                   -- free | paid
  unlimited INTEGER NOT NULL,
  created_at TEXT NOT NULL
) STRICT;

CREATE TABLE client_widgets (
  client_id TEXT PRIMARY KEY NOT NULL REFERENCES clients(id) ON DELETE CASCADE,
  model TEXT,
  system_prompt TEXT,
  updated_at TEXT NOT NULL
) STRICT;

CREATE TABLE documents (
  client_id TEXT NOT NULL,
  id TEXT NOT NULL,
  version INTEGER NOT NULL,
  content_digest TEXT NOT NULL,         -- SHA-256 of the file, hex
  original_name TEXT NOT NULL,
  file_type TEXT NOT NULL,
  file_size INTEGER NOT NULL,
  status TEXT NOT NULL,
  progress INTEGER NOT NULL,
  chunks_total INTEGER,
  chunks_processed INTEGER,
  qdrant_point_ids TEXT NOT NULL,       -- JSON array
  error_code TEXT,
  error_message TEXT,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL,
  processed_at TEXT,
  PRIMARY KEY (client_id, id)
) STRICT;
CREATE INDEX documents_client_created_idx ON documents(client_id, created_at, id);
CREATE INDEX documents_client_status_idx ON documents(client_id, status);
CREATE INDEX documents_id_idx ON documents(id);

-- The last version an id ever had. It outlives the document, so that a worker still busy with a deleted one can never
-- write into a new one of the same id.
CREATE TABLE document_versions (
  client_id TEXT NOT NULL,
  document_id TEXT NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY (client_id, document_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE document_staging (
  client_id TEXT NOT NULL,
  document_id TEXT NOT NULL,
  version INTEGER NOT NULL,
  what TEXT NOT NULL,                   -- file | text | chunks
  bytes BLOB NOT NULL,
  PRIMARY KEY (client_id, document_id, version, what)
) STRICT;

CREATE TABLE chat_logs (
  id TEXT PRIMARY KEY NOT NULL,
  client_id TEXT NOT NULL,
  session_id TEXT NOT NULL,
  role TEXT NOT NULL,                   -- user | assistant
  content TEXT NOT NULL,
  sources TEXT,                         -- JSON array, on the assistant's row, like all that follows
  prompt_tokens INTEGER,
  completion_tokens INTEGER,
  total_tokens INTEGER,
  cached INTEGER NOT NULL,
  model TEXT,
  latency_ms INTEGER,
  metadata TEXT NOT NULL,               -- JSON object: cachedTokens, degraded
  trace_id TEXT NOT NULL,               -- the run
  date TEXT NOT NULL,                   -- day of the question, YYYY-MM-DD, UTC
  created_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX chat_logs_run_idx ON chat_logs(client_id, trace_id, role);
CREATE INDEX chat_logs_client_session_idx ON chat_logs(client_id, session_id, created_at);
CREATE INDEX chat_logs_latency_idx ON chat_logs(client_id, date, latency_ms) WHERE role = 'assistant';

CREATE TABLE usage_stats (
  client_id TEXT NOT NULL,
  date TEXT NOT NULL,                   -- YYYY-MM-DD, UTC
  total_messages INTEGER NOT NULL,
  user_messages INTEGER NOT NULL,
  assistant_messages INTEGER NOT NULL,
  total_tokens INTEGER NOT NULL,
  prompt_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL,
  cached_tokens INTEGER NOT NULL,
  unique_sessions INTEGER NOT NULL,
  latency_ms_total INTEGER NOT NULL,
  avg_latency_ms INTEGER NOT NULL,
  p95_latency_ms INTEGER NOT NULL,
  updated_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX usage_stats_client_date_idx ON usage_stats(client_id, date);

CREATE TABLE usage_hourly (
  client_id TEXT NOT NULL,
  date TEXT NOT NULL,
  hour INTEGER NOT NULL,                -- 0 to 23, UTC
  request_count INTEGER NOT NULL,
  total_tokens INTEGER NOT NULL,
  PRIMARY KEY (client_id, date, hour)
) STRICT, WITHOUT ROWID;
