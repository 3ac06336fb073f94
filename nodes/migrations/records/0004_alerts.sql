-- That a tenant comes near its hourly limit, or is at it: said once for each window.

CREATE TABLE usage_alerts (
  client_id TEXT NOT NULL,
  window_start TEXT NOT NULL,
  level TEXT NOT NULL,                  -- threshold | limit
  alert TEXT NOT NULL,                  -- JSON object
  delivery TEXT NOT NULL,               -- waiting | sent | failed | unwanted
  held_until TEXT,                      -- until then a sender is at it
  PRIMARY KEY (client_id, window_start, level)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_alerts_waiting_idx ON usage_alerts(window_start) WHERE delivery = 'waiting';
