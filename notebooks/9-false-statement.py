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
# # 9 · A false statement, taken apart
#
# *We went to Toronto in Canada. The capital of Canada is the city of* … Toronto, says SmolLM2-135M.
# It knows better: without the first sentence it says Ottawa. Which heads make it say what is false,
# which work against that, and what does it say without them? The model is fetched once (93 MB);
# about two minutes on two idle cores.

# %%
import numpy as np
import pandas as pd

import mechspex as mx

model = mx.load_model("smollm2-135m")

# %% [markdown]
# ## Find the mistake
#
# A place, its capital, and another city there. The model is asked twice: alone, and after a sentence
# that says nothing of capitals. Kept are the places where it is right alone and wrong after it.

# %%
PLACES = """Canada Ottawa Toronto, China Beijing Shanghai, Italy Rome Milan, Germany Berlin Munich,
Tennessee Nashville Memphis, Texas Austin Houston, Egypt Cairo Alexandria, Ireland Dublin Cork,
England London Manchester, Arizona Phoenix Tucson, Colorado Denver Boulder, Ohio Columbus Cleveland,
Massachusetts Boston Worcester, Cuba Havana Santiago, Virginia Richmond Norfolk, France Paris Nice,
Georgia Atlanta Augusta, Japan Tokyo Hiroshima, Indiana Indianapolis Lafayette, Greece Athens Sparta"""
rows = [place.split() for place in PLACES.replace("\n", " ").split(", ")]
ALONE = "The capital of {0} is the city of"
LED = "We went to {2} in {0}. The capital of {0} is the city of"
alone = mx.greedy_answers(model, [ALONE.format(*row) for row in rows])
led = mx.greedy_answers(model, [LED.format(*row) for row in rows])
misled = [row for row, a, b in zip(rows, alone, led) if a.strip() == row[1] and b.strip() == row[2]]
print(f"right alone: {sum(a.strip() == row[1] for row, a in zip(rows, alone))} of {len(rows)}")
print(f"of these misled by the sentence: {len(misled)}:", *[row[0] for row in misled])

# %% [markdown]
# ## Which heads say it?
#
# The value is logit(wrong city) − logit(capital). Above zero the model says what is false. Eight
# places are searched; what is found is tested on the others.


# %%
def asked(rows, template=LED):
    prompts = [template.format(*row) for row in rows]
    wrong, right = [" " + row[2] for row in rows], [" " + row[1] for row in rows]
    return mx.Task(prompts, wrong, right, name="false capitals")


values = mx.ComponentValues(model, asked(misled[:8]), "heads", ablation="mean")
fresh = values.on(asked(misled[8:]))
explanation = mx.explain(values, held_out=fresh, n_masks=250, run="notebook-false")
print(explanation.in_short)
explanation.plot(metric="logit(wrong) − logit(right)")

# %% [markdown]
# Red heads work for the wrong city: ablating them lowers the value. Blue heads work against it, and
# ablating them makes the mistake worse. Both kinds lie late in the model, and those below are
# confirmed on places that the search has not seen. The mistake is a contest.

# %%
singles = explanation.singles().query("confirmed")
false_heads = singles.query("effect < 0").units.tolist()
true_heads = singles.query("effect > 0").units.tolist()
singles[["units", "effect", "low", "high"]].round(2)

# %% [markdown]
# They do not simply add up. Below zero: with one of the two gone, ablating the other lowers the value
# more, or raises it less. In many of the pairs one head works for the wrong city and one against it,
# as if the one answered to what the other says.

# %%
mx.figures.interactions(explanation, most=10, metric="logit(wrong) − logit(right)")

# %% [markdown]
# Where do they look? The last row is the place where the city is said.

# %%
shown = {"for the wrong city": false_heads[:2], "against it": true_heads[:2]}
patterns = mx.attention_patterns(model, LED.format(*misled[0]), sum(shown.values(), []))
patterns.plot(roles=shown)

# %% [markdown]
# Heads of both kinds look back at the city in the first sentence. A pattern does not tell them apart;
# the sign of the exact effect does. L23H4 looks at the country as well: it is the head that the task
# `capital` loses most without (notebook 4).
#
# ## What does it say without them?
#
# The heads that are confirmed to work for the wrong city are ablated together, on the fresh places;
# then those that work against it.

# %%
said = {"whole model": (), "without those for it": false_heads, "without those against": true_heads}
table = pd.DataFrame(
    {name: fresh.next_tokens(gone, 1)["token"].to_numpy() for name, gone in said.items()},
    index=[f"{row[0]} (is {row[1]}, told of {row[2]})" for row in misled[8:]],
)
table

# %% [markdown]
# Without the heads for it the falsehood goes in some of the places. In some of these the capital comes
# back, in others the model makes another guess. Without the heads against it, it says what is false
# as before, and is surer of it:

# %%
masks = np.array([[unit not in gone for unit in values.units.names] for gone in said.values()])
pd.Series(fresh(masks).mean(axis=1), index=list(said), name="mean on fresh places").round(2)

# %% [markdown]
# **A control.** Are these heads needed to know the capital? Asked alone, without the first sentence,
# the model still names most of them when the heads for the wrong city are ablated.

# %%
answers = values.on(asked(misled, ALONE)).next_tokens(false_heads, 1)["token"]
right = sum(answer.strip() == row[1] for answer, row in zip(answers, misled))
print(f"asked alone, without these heads: right on {right} of {len(misled)}")

# %% [markdown]
# So the falsehood is no lack of knowledge. A few late heads say what was just read, a few work against
# that, and here the first win. What to do next: other first sentences (do the same heads decide?),
# MLPs beside the heads (`"heads+mlps"`), or `mx.find_circuit` on the same task.
