-- Readings of one meter that came in one commit are one row, a run: its first place in each stream,
-- and how many places it takes. Its body is an array that is spread when it is read; an object is
-- one event as before. The bound keeps a look-up by place a short walk along an index.

ALTER TABLE events ADD COLUMN run_length INTEGER NOT NULL DEFAULT 1
    CHECK (run_length BETWEEN 1 AND 100);
