"""Flags of ``python -m pair_pkg distill``, beside those of stage 2."""

from dataclasses import dataclass, field
from typing import NamedTuple

from pair_pkg.data.corpus import DOCUMENT_PER
from pair_pkg.errors import InputError
from pair_pkg.modeling.loading import resolve_package
from pair_pkg.stages.arguments.architecture import BI_ENCODER, ArchitectureArguments
from pair_pkg.stages.arguments.pairs import PairFlags, PairTrainingArguments
from pair_pkg.training.arguments import refuse_below

FEWEST_PAIRS = 100  # of which a tenth validates: fewer tell nothing


@dataclass
class DistillationArguments:
    """Distillation: the teacher, the student, and the corpus whose sentences are paired."""

    teacher: str | None = field(default=None, metadata={"help": "folder of a cross-encoder that run_pair_cls.py wrote"})
    student: str | None = field(
        default=None,
        metadata={"help": "encoder to become the bi-encoder: a folder, package:NAME/FOLDER, or a Hub name"},
    )
    corpus: list[str] | None = field(
        default=None,
        metadata={
            "help": "files, folders or globs of documents whose sentences are paired, as for stage 1",
            "nargs": "+",
        },
    )
    text_column: str | None = field(
        default=None, metadata={"help": "column of the corpus's text; unset: text, content, document, ..."}
    )
    document_per: str = field(
        default="auto",
        metadata={
            "help": "in txt files a document is a line, or ends at a blank line; auto looks at the file",
            "choices": list(DOCUMENT_PER),
        },
    )
    max_sentences: int = field(
        default=100_000,
        metadata={
            "help": "different sentences of the corpus, drawn evenly, to look for neighbours in; their vectors are in "
            "memory, 1.5 KB each at width 384"
        },
    )
    num_pairs: int = field(
        default=10_000,
        metadata={
            "help": "pairs for the teacher to score: a third each nearest, farther and random ones (after Thakur et "
            "al., 2021); 10,000 take a processor minutes, and more are better where there is time"
        },
    )

    def __post_init__(self) -> None:
        for flag in ("teacher", "student", "corpus"):
            if not getattr(self, flag):
                raise InputError(f"distill: --{flag} is missing; give --teacher, --student and --corpus")
        refuse_below(self, num_pairs=FEWEST_PAIRS, max_sentences=FEWEST_PAIRS)
        self.teacher, self.student = resolve_package(self.teacher), resolve_package(self.student)


@dataclass
class StudentArguments(ArchitectureArguments):
    """Architecture: what is put on the encoder."""

    architecture: str = field(
        default=BI_ENCODER, metadata={"help": "a student is a bi_encoder", "choices": [BI_ENCODER]}
    )


@dataclass(repr=False)
class DistillationTrainingArguments(PairTrainingArguments):
    """Training: what this project adds to the library's arguments, or gives another default."""

    per_device_train_batch_size: int = field(
        default=32, metadata={"help": "pairs of a batch; 32, because CoSENT compares the pairs of a batch"}
    )
    learning_rate: float = field(default=2e-5, metadata={"help": "highest rate (Reimers and Gurevych, 2019)"})


class DistillationFlags(NamedTuple):
    """Everything that the command line of ``distill`` says."""

    distillation: DistillationArguments
    stage2: PairFlags


# The dataclasses of the command line, in the order of ``PairFlags`` behind the first.
OWN_TYPES = {ArchitectureArguments: StudentArguments, PairTrainingArguments: DistillationTrainingArguments}
DISTILLATION_TYPES = (
    DistillationArguments,
    *(OWN_TYPES.get(dataclass_type, dataclass_type) for dataclass_type in PairFlags.__annotations__.values()),
)
