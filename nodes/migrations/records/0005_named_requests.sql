-- Requests that their callers have named, each answered once in 24 hours.
CREATE TABLE named_requests (
  client_id TEXT NOT NULL,
  session_id TEXT NOT NULL,
  name TEXT NOT NULL,
  trace_id TEXT NOT NULL,               -- the run
  state TEXT NOT NULL,                  -- claimed | begun | failed | answered
  answer TEXT,                          -- JSON, once there is one
  holder TEXT NOT NULL,                 -- the process that has it
  taken_at TEXT NOT NULL,
  expires_at TEXT NOT NULL,
  PRIMARY KEY (client_id, session_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX named_requests_expiry_idx ON named_requests(client_id, expires_at);
