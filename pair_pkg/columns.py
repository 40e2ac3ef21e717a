"""The names that all floors share: columns, splits, architectures, and the synonyms that users bring."""

TEXT = "text"
SENTENCE1 = "sentence1"
SENTENCE2 = "sentence2"
LABEL = "label"
SOURCE = "source"

TRAIN = "train"
VALIDATION = "validation"
TEST = "test"

CROSS_ENCODER = "cross_encoder"
BI_ENCODER = "bi_encoder"

# The first name of each tuple is ours; the others are what published corpora and pair sets use.
TEXT_SYNONYMS = (TEXT, "content", "document", "body", "passage", "sentence", "line")
SENTENCE1_SYNONYMS = (
    SENTENCE1, "question1", "text_a", "query1", "sent1", "text1", "sentence_1", "sentence_a", "premise", "q1", "s1",
)  # fmt: skip
SENTENCE2_SYNONYMS = (
    SENTENCE2, "question2", "text_b", "query2", "sent2", "text2", "sentence_2", "sentence_b", "hypothesis", "q2", "s2",
)  # fmt: skip
LABEL_SYNONYMS = (LABEL, "labels", "score", "similarity", "is_duplicate", "gold_label", "target")
