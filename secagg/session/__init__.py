"""What sessions of every protocol share: one thread, one process, ids, contexts, answers."""
