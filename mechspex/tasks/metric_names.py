"""The metrics a task may name; a task file is read without loading torch."""

METRICS = {
    "logit_difference": "log-odds of the answers against the distractors: for single tokens the "
    "logit of the answer less that of the distractor",
    "probability_difference": "probability of the answers less probability of the distractors",
    "answer_probability": "probability of the answer, or of all of them",
    "answer_log_probability": "log-probability of the answer, or of any of them, nats",
    "kl_divergence": "KL divergence of the masked model's next token from the clean model's, nats",
}

# Those that are above 0 where the answer is likelier than the distractor: chance is 0, and the
# share of prompts above it is the accuracy.
DIFFERENCES = ("logit_difference", "probability_difference")
