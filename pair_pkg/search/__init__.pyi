from .answers import Answer as Answer
from .answers import Hit as Hit
from .ready_encoder import ReadyEncoder as ReadyEncoder
from .ready_encoder import load_encoder as load_encoder
from .searcher import Searcher as Searcher
from .searcher import load_searcher as load_searcher
from .text_index import index_texts as index_texts
