DROP INDEX meter_readings_unminted;
CREATE INDEX meter_readings_unminted ON meter_readings (submitted_at_ms, reading_id)
    WHERE credit_wh > 0 AND minted = 0 AND batch_id IS NULL;
DROP INDEX meter_readings_by_meter;
CREATE INDEX meter_readings_by_meter ON meter_readings (meter_id, at_ms DESC);
CREATE INDEX meter_readings_identity ON meter_readings (meter_id, epoch, seq);
