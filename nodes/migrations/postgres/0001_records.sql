-- What stands beside the tables of the Express service in its database. Nothing here changes one of those. Times are UTC
-- without a time zone, as theirs. No foreign key leads to `clients`: what is ours must not stand in the way of its owner.

CREATE TABLE stepgraph_tenant_settings (
  client_id varchar PRIMARY KEY,
  settings jsonb NOT NULL,              -- what differs from the columns of `clients` and `client_widgets`; null takes away
  unlimited boolean NOT NULL DEFAULT false,
  updated_at timestamp NOT NULL
);

-- `documents` has one key for all tenants and no versions; it is kept up to date from here.
CREATE TABLE stepgraph_documents (
  client_id varchar NOT NULL,
  id varchar NOT NULL,
  version bigint NOT NULL,
  content_digest varchar NOT NULL,      -- SHA-256 of the file, hex
  original_name varchar NOT NULL,
  file_type varchar NOT NULL,
  file_size bigint NOT NULL,
  status varchar NOT NULL,
  progress integer NOT NULL,
  chunks_total bigint,
  chunks_processed bigint,
  point_ids jsonb NOT NULL,
  error_code varchar,
  error_message text,
  created_at timestamp NOT NULL,
  updated_at timestamp NOT NULL,
  processed_at timestamp,
  PRIMARY KEY (client_id, id)
);
CREATE INDEX stepgraph_documents_created_idx ON stepgraph_documents(client_id, created_at, id);
CREATE INDEX stepgraph_documents_id_idx ON stepgraph_documents(id);
CREATE INDEX stepgraph_documents_open_idx ON stepgraph_documents(created_at) WHERE status NOT IN ('completed', 'failed');

-- The last version an id ever had. It outlives the document, so that a worker still busy with a deleted one can never
-- write into a new one of the same id.
CREATE TABLE stepgraph_document_versions (
  client_id varchar NOT NULL,
  document_id varchar NOT NULL,
  version bigint NOT NULL,
  PRIMARY KEY (client_id, document_id)
);

CREATE TABLE stepgraph_document_staging (
  client_id varchar NOT NULL,
  document_id varchar NOT NULL,
  version bigint NOT NULL,
  what varchar NOT NULL,                -- file | text | chunks
  bytes bytea NOT NULL,
  PRIMARY KEY (client_id, document_id, version, what)
);

-- Which runs are in `chat_logs` and booked: that table has no unique key to tell by.
CREATE TABLE stepgraph_turns (
  client_id varchar NOT NULL,
  trace_id varchar NOT NULL,            -- the run
  session_id varchar NOT NULL,
  date date NOT NULL,                   -- day of the question, UTC
  latency_ms bigint NOT NULL,
  asked_at timestamp NOT NULL,
  PRIMARY KEY (client_id, trace_id)
);
CREATE INDEX stepgraph_turns_session_idx ON stepgraph_turns(client_id, session_id, asked_at);
CREATE INDEX stepgraph_turns_latency_idx ON stepgraph_turns(client_id, date, latency_ms);
CREATE INDEX stepgraph_turns_age_idx ON stepgraph_turns(client_id, asked_at);

CREATE TABLE stepgraph_feedback (
  client_id varchar NOT NULL,
  trace_id varchar NOT NULL,
  rating varchar NOT NULL,              -- up | down
  comment text,
  rated_at timestamp NOT NULL,
  PRIMARY KEY (client_id, trace_id)
);

CREATE TABLE stepgraph_threads (
  client_id varchar NOT NULL,
  id uuid NOT NULL,
  graph varchar,
  metadata jsonb NOT NULL,
  created_at timestamp NOT NULL,
  updated_at timestamp NOT NULL,
  PRIMARY KEY (client_id, id)
);

CREATE TABLE IF NOT EXISTS usage_hourly (
  client_id varchar NOT NULL,
  date date NOT NULL,
  hour integer NOT NULL,                -- 0 to 23, UTC
  request_count bigint NOT NULL DEFAULT 0,
  overage_count bigint NOT NULL DEFAULT 0,
  total_tokens bigint NOT NULL DEFAULT 0,
  prompt_tokens bigint NOT NULL DEFAULT 0,
  completion_tokens bigint NOT NULL DEFAULT 0,
  cached_tokens bigint NOT NULL DEFAULT 0,
  cost_microcents bigint NOT NULL DEFAULT 0,
  latency_ms_total bigint NOT NULL DEFAULT 0,
  UNIQUE (client_id, date, hour)
);

CREATE TABLE IF NOT EXISTS billing_events (
  id varchar PRIMARY KEY,               -- of overage: made of tenant and day, so that a day has one
  client_id varchar NOT NULL,
  event_type varchar NOT NULL,          -- overage | subscription | payment
  amount_cents integer NOT NULL,
  details jsonb NOT NULL DEFAULT '{}',
  status varchar NOT NULL DEFAULT 'pending',
  created_at timestamp NOT NULL
);
CREATE INDEX IF NOT EXISTS billing_events_client_idx ON billing_events(client_id, created_at);
