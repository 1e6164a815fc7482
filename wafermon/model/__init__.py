"""What everything speaks of: messages, errors, blocks, positions, batches, settings. No I/O."""
