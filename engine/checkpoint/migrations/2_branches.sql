-- The branch that a thread is on. Its newest checkpoint is the thread's head; checkpoint_branches says where the others
-- stand.
ALTER TABLE checkpoint_threads ADD COLUMN branch TEXT NOT NULL DEFAULT 'main';
