DROP INDEX meter_readings_by_meter;
CREATE INDEX meter_readings_by_meter ON meter_readings (meter_id, at_ms DESC);
CREATE INDEX meter_readings_identity ON meter_readings (meter_id, epoch, seq);
