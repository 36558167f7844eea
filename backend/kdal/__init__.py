"""The Label Studio plugin around kdal_core: it pre-annotates, orders the queue and retrains."""
