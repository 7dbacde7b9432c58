# ---
# jupyter:
#   jupytext:
#     text_representation:
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 7 · Which words act together, and which heads read them?
#
# A prompt can be asked what a network is asked: which of its parts matter, and which only
# together? The parts are its words or sentences; ablated ones are deleted, or hidden from the
# attention of all others. SmolLM2 (fetched once, 93 MB) answers. About three minutes on two cores.

# %%
import mechspex as mx

model = mx.load_model("smollm2-135m")

# %% [markdown]
# ## A negation
#
# Six words, so all 64 masks can be measured and nothing is estimated. The value is how much likelier
# *positive* is than *negative* after the review. What the prompt says besides the six words is
# always kept.

# %%
review = mx.words("Review: Her acting never fails to impress", by="word")[1:]
values = mx.PromptValues(
    model,
    review,
    "\nSentiment:",
    response=" positive",
    distractor=" negative",
    metric="logit_difference",
)
explanation = mx.explain(values, decoder="exhaustive")
print(explanation)

# %% [markdown]
# Each word is shaded by what ablating it alone does, and a line joins words that do more, or less,
# together than one by one.

# %%
explanation.plot()

# %% [markdown]
# ## Two sentences that are needed together
#
# Where is the apple? One sentence says who has it, another where he is; neither is enough.

# %%
context = """A dog barked in the street. Nobody had time to read the news. Maria has the ball.
Paul has the apple. Paul is in the bedroom. The clock on the wall was slow. Dinner was served at
seven. Maria is in the garden.""".replace("\n", " ")
values = mx.PromptValues(model, context, "\n\nThe apple is in the", response=" bedroom")
print(values.read[0])

# %% [markdown]
# A single text has no spread over prompts. So each term is also measured among random masks of the
# other sentences: *confirmed* means that it keeps its sign there.

# %%
explanation = mx.explain(values, n_masks=100, tests=mx.ExactTests(contexts=16))
explanation.top(5)

# %% [markdown]
# How well does each answer predict masks that it has not seen (LDS, a rank correlation), and how
# much of the answer goes when its best sentences do? The same for scores that give each sentence
# one number.

# %%
methods = {
    "interactions": explanation,
    "leave one out": mx.leave_one_out(values),
    "random": mx.random_scores(values.n_units),
}
display(mx.lds(methods, values, n_masks=40).to_pandas())
display(mx.top_k_drop(methods, values, k=[1, 2]).to_pandas())

# %% [markdown]
# ## Which head needs which word?
#
# Words and heads are units of one mask. On indirect object identification the names have places of
# their own in every prompt; here they are hidden from attention, and heads are ablated by their mean.

# %%
task, held_out = mx.load_task("ioi", model, n_prompts=12, spans=True).split(4, 8)
heads = mx.heads(model)[["L23H3", "L20H0", "L29H1"]]
units = mx.spans(task, hidden=True)[["IO", "S1", "S2"]] + heads
values = mx.ComponentValues(model, task, units)
explanation = mx.explain(values, held_out=values.on(held_out), n_masks=64)
print(explanation)

# %% [markdown]
# A word and a head that form a pair: S2 × L23H3 is about as large as the head's own effect, with the other
# sign. So where the second subject is hidden, losing the head costs next to nothing: it does its
# work by that word. Next: more heads, or the words of your own prompt beside all heads,
# `mx.words(prompt) + mx.heads(model)`.
