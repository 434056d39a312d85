-- Runs are spread before: see `migrate.py`.
ALTER TABLE events DROP COLUMN run_length;
