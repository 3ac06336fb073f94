-- Requests that their callers have named, each answered once in 24 hours.
CREATE TABLE stepgraph_named_requests (
  client_id varchar NOT NULL,
  session_id varchar NOT NULL,
  name varchar NOT NULL,
  trace_id varchar NOT NULL,            -- the run
  state varchar NOT NULL,               -- claimed | begun | failed | answered
  answer jsonb,                         -- once there is one
  taken_at timestamp NOT NULL,
  expires_at timestamp NOT NULL,
  PRIMARY KEY (client_id, session_id, name)
);
CREATE INDEX stepgraph_named_requests_expiry_idx ON stepgraph_named_requests(client_id, expires_at);
