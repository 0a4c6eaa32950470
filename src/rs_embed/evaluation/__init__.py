"""What a model's embeddings are worth on real labels."""

from rs_embed.evaluation.report import EvaluationReport as EvaluationReport
from rs_embed.evaluation.running import evaluate as evaluate
from rs_embed.evaluation.running import score_embeddings as score_embeddings

__all__ = ["EvaluationReport", "evaluate", "score_embeddings"]
