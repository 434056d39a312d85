-- What keeps the chain side tidy: lookup tables on record, and markers whose rent came back.

CREATE TABLE lookup_tables (
    address TEXT PRIMARY KEY,
    recent_slot INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('opening', 'active', 'retiring', 'closed')),
    used_at_ms INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT;

-- A crash while a table is made leaves at most this one behind.
CREATE UNIQUE INDEX lookup_tables_one_opening ON lookup_tables (state) WHERE state = 'opening';

CREATE TABLE marker_reclaims (
    batch_id INTEGER PRIMARY KEY REFERENCES mint_batches,
    intended_at_ms INTEGER NOT NULL,
    done_at_ms INTEGER,
    lamports INTEGER,
    CHECK ((done_at_ms IS NULL) = (lamports IS NULL))
) STRICT;

CREATE INDEX mint_batches_old_markers ON mint_batches (final_at_ms)
    WHERE state = 'final' AND marker_reclaimed_at_ms IS NULL;
