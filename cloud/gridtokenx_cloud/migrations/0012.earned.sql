-- Only indexes that a query needs. A line that comes again is found by its meter and its own time,
-- which is the stored one's; whatever else comes under a stored seq is looked for among the meter's.

DROP INDEX meter_readings_identity;
DROP INDEX meter_readings_by_meter;
CREATE INDEX meter_readings_by_meter ON meter_readings (meter_id, at_ms DESC, seq);

-- What waits for whom is summed for every page: the index has all that the sum needs.
DROP INDEX meter_readings_unminted;
CREATE INDEX meter_readings_unminted ON meter_readings
    (submitted_at_ms, reading_id, user_id, meter_id, credit_wh, minted, batch_id)
    WHERE credit_wh > 0 AND minted = 0 AND batch_id IS NULL;
