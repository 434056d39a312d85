-- postgresql: DROP TRIGGER meter_readings_moves ON meter_readings;
-- postgresql: DROP TRIGGER mint_attempts_moves ON mint_attempts;
-- postgresql: DROP TRIGGER mint_batches_moves ON mint_batches;
-- postgresql: DROP FUNCTION refuse_move;
DROP TRIGGER meter_readings_moves;
DROP TRIGGER mint_attempts_moves;
DROP TRIGGER mint_batches_moves;
