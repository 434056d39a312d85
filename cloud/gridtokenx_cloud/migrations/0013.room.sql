-- Rows that each commit changes. On PostgreSQL their pages are filled by half only, so that the new
-- version of a row finds room beside the old one and no index has to be told of it.

-- postgresql: ALTER TABLE meter_epochs SET (fillfactor = 50);
-- postgresql: ALTER TABLE seq_ranges SET (fillfactor = 50);
-- postgresql: ALTER TABLE event_streams SET (fillfactor = 50);
-- postgresql: ALTER TABLE meter_live SET (fillfactor = 50);
