ALTER TABLE meter_readings DROP COLUMN remarks;
DROP TABLE rejection_floods;
DROP TABLE meter_owners;
DROP TABLE meter_gateways;
DROP TABLE gateway_rotations;
