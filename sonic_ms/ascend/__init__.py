"""Everything about Ascend that can be said without an Ascend: facts, lint, command lines, audits, predictions."""
