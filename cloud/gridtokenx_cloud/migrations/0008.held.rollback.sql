DROP INDEX meter_readings_held;
CREATE INDEX meter_readings_held ON meter_readings (status) WHERE status = 'held';
