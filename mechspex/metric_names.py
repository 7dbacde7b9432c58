"""The metrics a task may name; a task file is read without loading torch."""

METRICS = {
    "logit_difference": "logit of the answer less logit of the distractor",
    "probability_difference": "probability of the answers less probability of the distractors",
    "answer_probability": "probability of the answer, or of all of them",
    "kl_divergence": "KL divergence of the masked model's next token from the clean model's, nats",
}
