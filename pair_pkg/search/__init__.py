"""What vectors of texts are good for: files of rows, FAISS indexes, mining, duplicates by meaning."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
