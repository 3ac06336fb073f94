-- The tables of the Express service as a current deployment has them.
CREATE TABLE users (
  id varchar PRIMARY KEY DEFAULT gen_random_uuid(), username text NOT NULL UNIQUE, password text NOT NULL,
  created_at timestamp NOT NULL DEFAULT now());
CREATE TABLE clients (
  id varchar PRIMARY KEY DEFAULT gen_random_uuid(), user_id varchar NOT NULL REFERENCES users(id), name text NOT NULL,
  public_api_key varchar NOT NULL UNIQUE, allowed_domains jsonb NOT NULL DEFAULT '[]', status varchar NOT NULL DEFAULT 'active', -- active | paused | disabled
  tier varchar NOT NULL DEFAULT 'free', -- free | paid
  created_at timestamp NOT NULL DEFAULT now());
CREATE INDEX clients_user_id_idx ON clients(user_id); CREATE INDEX clients_public_api_key_idx ON clients(public_api_key);
CREATE TABLE client_widgets (
  id varchar PRIMARY KEY DEFAULT gen_random_uuid(), client_id varchar NOT NULL UNIQUE REFERENCES clients(id),
  primary_color varchar NOT NULL DEFAULT '#3b82f6', "position" varchar NOT NULL DEFAULT 'bottom-right',
  welcome_message text NOT NULL DEFAULT 'Hi! How can I help?', widget_name varchar NOT NULL DEFAULT 'Support',
  model varchar DEFAULT 'gpt-4o-mini', system_prompt text, max_tokens integer DEFAULT 1000, temperature numeric(2,1) DEFAULT 0.7,
  created_at timestamp NOT NULL DEFAULT now(), updated_at timestamp NOT NULL DEFAULT now());
CREATE TABLE documents (
  id varchar PRIMARY KEY DEFAULT gen_random_uuid(), client_id varchar NOT NULL REFERENCES clients(id),
  filename varchar NOT NULL, original_name varchar NOT NULL, file_type varchar NOT NULL, file_size integer NOT NULL, file_path varchar,
  status varchar NOT NULL DEFAULT 'pending', progress integer NOT NULL DEFAULT 0, current_step varchar, error_message text,
  chunks_total integer, chunks_processed integer, qdrant_point_ids jsonb DEFAULT '[]',
  title text, description text, tags jsonb DEFAULT '[]', metadata jsonb DEFAULT '{}',
  created_at timestamp NOT NULL DEFAULT now(), updated_at timestamp NOT NULL DEFAULT now(), processed_at timestamp);
CREATE INDEX documents_client_status_idx ON documents(client_id, status);
CREATE TABLE chat_logs (
  id varchar PRIMARY KEY DEFAULT gen_random_uuid(), client_id varchar NOT NULL REFERENCES clients(id), session_id varchar NOT NULL,
  role varchar NOT NULL, content text NOT NULL, sources jsonb, -- role user | assistant
  prompt_tokens integer, completion_tokens integer, total_tokens integer, cached boolean DEFAULT false,
  model varchar, latency_ms integer, metadata jsonb DEFAULT '{}', trace_id varchar, created_at timestamp NOT NULL DEFAULT now());
CREATE INDEX chat_logs_client_session_idx ON chat_logs(client_id, session_id);
CREATE TABLE usage_stats ( -- one row per client and day; no unique constraint exists
  id varchar PRIMARY KEY DEFAULT gen_random_uuid(), client_id varchar NOT NULL REFERENCES clients(id), date timestamp NOT NULL,
  total_messages integer NOT NULL DEFAULT 0, user_messages integer NOT NULL DEFAULT 0, assistant_messages integer NOT NULL DEFAULT 0,
  total_tokens integer NOT NULL DEFAULT 0, prompt_tokens integer NOT NULL DEFAULT 0, completion_tokens integer NOT NULL DEFAULT 0,
  cached_tokens integer NOT NULL DEFAULT 0, estimated_cost_cents integer NOT NULL DEFAULT 0, unique_sessions integer NOT NULL DEFAULT 0,
  avg_latency_ms integer, p95_latency_ms integer, updated_at timestamp NOT NULL DEFAULT now());
CREATE INDEX usage_stats_client_date_idx ON usage_stats(client_id, date);
