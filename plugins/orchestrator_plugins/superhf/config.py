"""Options of SuperHF, each with its source."""

from pydantic import Field, model_validator

from orchestrator.api import PluginConfig


class BestOfConfig(PluginConfig):
    """Samples each task several times and keeps the best."""

    count: int = Field(16, ge=1, description="rollouts per task; code: superbatch size, 16 (default.yaml), earlier 32")
    keep: int = Field(1, ge=1, description="best ones kept for training; code: k, 1")
    length_penalty: float = Field(
        0.0, ge=0, description="times the logarithm of an answer's characters, off its score before ranking; code: 0"
    )

    @model_validator(mode="after")
    def _keeps_no_more_than_it_has(self) -> "BestOfConfig":
        if self.keep > self.count:
            raise ValueError(f"keep is {self.keep} but count only {self.count}; expected keep <= count")
        return self


class SuperHFConfig(PluginConfig):
    """Cross-entropy plus full-vocabulary forward KL to the initial policy."""

    kl_weight: float = Field(
        0.35, ge=0, description="weight of the KL to the initial policy; code: 0.35 (default.yaml), earlier 0.23"
    )
    measure_kl: bool = Field(
        True, description="with kl_weight 0: still run the reference to report the KL; false: spare the pass"
    )


class PhraseShareConfig(PluginConfig):
    """Share of an answer's words that are one phrase: added to another reward, a proxy to be gamed."""

    phrase: str = Field(pattern=r"^\S+$", description="the word that is liked, as white space separates words")


class MeteorSimilarityConfig(PluginConfig):
    """Scores nothing; measures at evaluation how alike the answers to different tasks are."""

    pairs: int = Field(
        128, ge=1, description="random pairs of answers to different tasks; paper: 16 to 128 per test set"
    )
    stem: bool = Field(False, description="match words by Porter stem too")
    synonyms: bool = Field(False, description="match WordNet synonyms too; needs nltk's corpus `wordnet`")
    seed: int = Field(0, description="of the pairs")
