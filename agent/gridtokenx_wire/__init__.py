"""The contract between gateway and cloud: records, lines, receipts, topics."""
