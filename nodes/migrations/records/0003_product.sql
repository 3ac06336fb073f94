-- How tenants are served, what readers thought of answers, what is billed, and usage in full.

CREATE TABLE tenant_settings (
  client_id TEXT PRIMARY KEY NOT NULL,
  settings TEXT NOT NULL,               -- JSON object; model, prompt and domains stand in their own tables as well
  updated_at TEXT NOT NULL
) STRICT;

CREATE TABLE feedback (
  client_id TEXT NOT NULL,
  trace_id TEXT NOT NULL,               -- the run
  rating TEXT NOT NULL,                 -- up | down
  comment TEXT,
  rated_at TEXT NOT NULL,
  PRIMARY KEY (client_id, trace_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE billing_events (
  id TEXT PRIMARY KEY NOT NULL,         -- of overage: made of tenant and day, so that a day has one
  client_id TEXT NOT NULL,
  event_type TEXT NOT NULL,             -- overage | subscription | payment
  amount_cents INTEGER NOT NULL,
  details TEXT NOT NULL,                -- JSON object
  status TEXT NOT NULL,
  created_at TEXT NOT NULL
) STRICT;
CREATE INDEX billing_events_client_idx ON billing_events(client_id, created_at);

ALTER TABLE usage_hourly ADD COLUMN overage_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_hourly ADD COLUMN prompt_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_hourly ADD COLUMN completion_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_hourly ADD COLUMN cached_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_hourly ADD COLUMN cost_microcents INTEGER NOT NULL DEFAULT 0;

ALTER TABLE usage_stats ADD COLUMN cost_microcents INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_stats ADD COLUMN estimated_cost_cents INTEGER NOT NULL DEFAULT 0;

-- For chat retention.
CREATE INDEX chat_logs_age_idx ON chat_logs(client_id, created_at);
