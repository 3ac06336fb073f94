-- That a tenant comes near its hourly limit, or is at it: said once for each window.

CREATE TABLE stepgraph_usage_alerts (
  client_id varchar NOT NULL,
  window_start timestamp NOT NULL,
  level varchar NOT NULL,               -- threshold | limit
  alert jsonb NOT NULL,
  delivery varchar NOT NULL,            -- waiting | sent | failed | unwanted
  held_until timestamp,                 -- until then a sender is at it
  PRIMARY KEY (client_id, window_start, level)
);
CREATE INDEX stepgraph_usage_alerts_waiting_idx ON stepgraph_usage_alerts(window_start) WHERE delivery = 'waiting';
