"""The masked-language-model objective: masks, the sparse head, perplexity."""
