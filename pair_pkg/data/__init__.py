"""Reading files, documents and pairs, splits, tokenization, and batches."""
