"""What vectors of texts are good for: files of rows, FAISS indexes, mining, duplicates by meaning."""
