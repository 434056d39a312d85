-- The moves of a batch and of an attempt that the protocol knows; the database refuses all others,
-- whoever asks. And what was minted stays as it was minted.

CREATE TRIGGER mint_batches_moves BEFORE UPDATE OF state ON mint_batches
WHEN OLD.state <> NEW.state AND NOT (
    OLD.state = 'sealed' AND NEW.state IN ('signed', 'final', 'void', 'disputed')
    OR OLD.state = 'signed' AND NEW.state IN ('in_flight', 'sealed', 'final', 'disputed')
    OR OLD.state = 'in_flight' AND NEW.state IN ('sealed', 'final', 'disputed')
    OR OLD.state = 'disputed' AND NEW.state IN ('sealed', 'void')
    -- A rebuild from the chain finds a mint of it.
    OR OLD.state = 'void' AND NEW.state = 'final')
BEGIN
    SELECT RAISE(ABORT, 'a batch cannot make this move');
END;

CREATE TRIGGER mint_attempts_moves BEFORE UPDATE OF outcome ON mint_attempts
-- What was called expired or failed may be shown to have landed: the finalized chain outranks us.
WHEN OLD.outcome <> NEW.outcome AND OLD.outcome <> 'pending' AND NEW.outcome <> 'landed'
BEGIN
    SELECT RAISE(ABORT, 'an attempt cannot make this move');
END;

CREATE TRIGGER meter_readings_moves
BEFORE UPDATE OF minted, batch_id, credit_wh, mint_tx_signature ON meter_readings
WHEN OLD.batch_id IS NOT NULL AND OLD.credit_wh <> NEW.credit_wh
    OR OLD.minted = 1 AND (NEW.minted = 0 OR OLD.batch_id <> NEW.batch_id
        OR OLD.mint_tx_signature <> NEW.mint_tx_signature)
BEGIN
    SELECT RAISE(ABORT, 'a credit in a batch stays as it is, and a minted one minted');
END;

-- postgresql: CREATE FUNCTION refuse_move() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
-- postgresql:     RAISE EXCEPTION USING ERRCODE = ''integrity_constraint_violation'',
-- postgresql:         MESSAGE = ''a row of '' || TG_TABLE_NAME || '' cannot make this move'';
-- postgresql: END';
-- postgresql: DO 'BEGIN
-- postgresql:     CREATE TRIGGER mint_batches_moves BEFORE UPDATE OF state ON mint_batches FOR EACH ROW
-- postgresql:     WHEN (OLD.state <> NEW.state AND NOT (
-- postgresql:         OLD.state = ''sealed'' AND NEW.state IN (''signed'', ''final'', ''void'', ''disputed'')
-- postgresql:         OR OLD.state = ''signed''
-- postgresql:             AND NEW.state IN (''in_flight'', ''sealed'', ''final'', ''disputed'')
-- postgresql:         OR OLD.state = ''in_flight'' AND NEW.state IN (''sealed'', ''final'', ''disputed'')
-- postgresql:         OR OLD.state = ''disputed'' AND NEW.state IN (''sealed'', ''void'')
-- postgresql:         OR OLD.state = ''void'' AND NEW.state = ''final''))
-- postgresql:     EXECUTE FUNCTION refuse_move();
-- postgresql:     CREATE TRIGGER mint_attempts_moves BEFORE UPDATE OF outcome ON mint_attempts
-- postgresql:     FOR EACH ROW WHEN (
-- postgresql:         OLD.outcome <> NEW.outcome AND OLD.outcome <> ''pending''
-- postgresql:         AND NEW.outcome <> ''landed'')
-- postgresql:     EXECUTE FUNCTION refuse_move();
-- postgresql:     CREATE TRIGGER meter_readings_moves
-- postgresql:     BEFORE UPDATE OF minted, batch_id, credit_wh, mint_tx_signature ON meter_readings
-- postgresql:     FOR EACH ROW WHEN (OLD.batch_id IS NOT NULL AND OLD.credit_wh <> NEW.credit_wh
-- postgresql:         OR OLD.minted = 1 AND (NEW.minted = 0 OR OLD.batch_id <> NEW.batch_id
-- postgresql:             OR OLD.mint_tx_signature <> NEW.mint_tx_signature))
-- postgresql:     EXECUTE FUNCTION refuse_move();
-- postgresql: END';
