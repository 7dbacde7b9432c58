"""The figures of the literature that are drawn again here; nothing is loaded to list them."""

from __future__ import annotations

from mechspex.experiments.paper_figure import PaperFigure

SPEX = "SPEX, Kang et al. 2025"
PROXYSPEX = "ProxySPEX, Butler et al. 2025"
IOI = "IOI, Wang et al. 2022"
HYDRA = "Hydra, McGrath et al. 2023"
REPAIR = "Rushing & Nanda 2024"
ACDC = "ACDC, Conmy et al. 2023"
MIB = "MIB, Mueller et al. 2025"
EAP_IG = "EAP-IG, Hanna et al. 2024"
DATTRI = "dattri, Deng et al. 2024"
CONTEXT_CITE = "ContextCite, Cohen-Wang et al. 2024"

_FIGURES = (
    PaperFigure(
        name="recovery",
        paper=f"{PROXYSPEX}, Figure 13",
        title="Which decoder recovers which function",
        shows="R² on fresh masks against the number of masks, for unrelated sets (peaks) and for "
        "sets with all their subsets (a complete hierarchy).",
        differs="64 units (the paper does not say how many it has); our own decoders beside trees, "
        "a forest, a network and the LASSO.",
        minutes=(3, 60),
    ),
    PaperFigure(
        name="shapley",
        paper=f"{PROXYSPEX}, Figures 8 and 14",
        title="Shapley values from few masks",
        shows="How many of the ten largest Shapley values are found, and the error of all of them, "
        "against the number of masks.",
        differs="The truth is exact: planted functions, whose Shapley values have a closed form; "
        "the paper takes an estimate of its rival's kind from 10,000 masks. Beside: masks with "
        "their complements, and shapiq's estimators of 2025 and 2026 where it has them.",
        minutes=(2, 30),
    ),
    PaperFigure(
        name="r2-samples",
        paper=f"{PROXYSPEX}, Figures 1 and 6; {SPEX}",
        title="How many masks of a model's heads",
        shows="R² on fresh masks against the number of masks; heads kept with p = ½ or .9.",
        differs="Heads under mean ablation on IOI prompts (36 of SmolLM2, 270 in full) in place of "
        "words and parts of a picture; the prompts are decoded together and judged by their mean. "
        "SPEX measures masks of its own, as many.",
        minutes=(6, 150),
        model=True,
        tasks=("ioi",),
    ),
    PaperFigure(
        name="sparsity",
        paper=f"{PROXYSPEX}, Figures 5 and 12",
        title="How many coefficients suffice",
        shows="The share of R² that stays with the largest coefficients alone, in three bases.",
        differs="Heads of SmolLM2 on IOI (36, in full 270); below the mean's R² the share is 0. "
        "The Fourier basis is the paper's; the two Möbius bases of the same functions beside it.",
        minutes=(4, 100),
        model=True,
        tasks=("ioi",),
    ),
    PaperFigure(
        name="removal",
        paper=f"{PROXYSPEX}, Figure 7; {SPEX}, Rem(r)",
        title="Which heads change the output most",
        shows="|f(1) − f(without r)|/|f(1)| against r, without what a recovered function names.",
        differs="Heads of SmolLM2 in place of words; falls and rises of the value both count, by "
        "the exact subset program. Beside it what the published code of SPEX does (it removes "
        "what is best kept alone), and the best pair, greedy choice and single ablations.",
        minutes=(5, 120),
        model=True,
        tasks=("ioi", "capital"),
    ),
    PaperFigure(
        name="wall-clock",
        paper=f"{PROXYSPEX}, Figure 15; {SPEX}",
        title="Seconds until a function is recovered",
        shows="Seconds of measuring and decoding that a level of R² takes.",
        differs="The masks and decodings of r2-samples, which is measured first if it is not "
        "there; one core decodes. Where the fewest masks tried reach a level, fewer may as well.",
        minutes=(6, 150),
        model=True,
        tasks=("ioi",),
    ),
    PaperFigure(
        name="hierarchy",
        paper=f"{PROXYSPEX}, Figures 3 and 11",
        title="Do large coefficients come with their subsets?",
        shows="How often the largest Fourier coefficients come with the sets that lack one unit "
        "(DSR), with a chain of subsets (SCR), with all subsets (SHR).",
        differs="Exact spectra of models whose truth is known and of planted functions, in place "
        "of spectra that a decoder found; sets drawn at random with the same orders beside them.",
        minutes=(0.5, 10),
    ),
    PaperFigure(
        name="spex-design",
        paper=f"{SPEX}, appendix",
        title="How many bins SPEX needs",
        shows="R² and F1 against the bits b of a group's bins, by hard and soft decoding.",
        differs="Planted peaks of 64 units, on which the truth is known, in place of texts.",
        minutes=(1, 10),
    ),
    PaperFigure(
        name="never-fails",
        paper=f"{SPEX}, introduction",
        title="Six words with a negation",
        shows="The exact Möbius terms of short sentences, from all masks of their words.",
        differs="The value is SmolLM2's logit difference of positive and negative after a review; "
        "the paper's is a sentiment classifier's. Signs can be compared, sizes cannot.",
        minutes=(0.5, 0.5),
        model=True,
    ),
    PaperFigure(
        name="tracr-auc",
        paper=f"{ACDC}, tables of AUC",
        title="Which method finds the heads of a compiled program",
        shows="The area under the ROC curve of a score of each head and MLP, against the program "
        "and against the exact truth of the same ablation.",
        differs="One area for each unit score; the paper varies the threshold of a search over "
        "edges. What an ablation cannot show is no error: the exact truth changes with it.",
        minutes=(0.3, 1),
    ),
    PaperFigure(
        name="head-pruning",
        paper=f"{PROXYSPEX}, Figure 10, top",
        title="Which heads can go",
        shows="The value and the share of right answers against the heads that are kept, chosen by "
        "a recovered function, an additive one, the best of the sampled masks, and at random.",
        differs="SmolLM2 with 54 heads of six layers and a logit difference, each choice scored on "
        "64 prompts that did not choose; the paper has 96 heads of Llama-3.1-8B, questions of "
        "MMLU, and bars on questions that chose. Recovered stands for ProxySPEX there, additive "
        "for the LASSO, best sampled for Best-of-N.",
        minutes=(4, 40),
        model=True,
        tasks=("ioi", "pronoun", "capital"),
    ),
    PaperFigure(
        name="head-energy",
        paper=f"{PROXYSPEX}, Figure 10, bottom",
        title="How heads act together, by depth",
        shows="The shares of the variance that are linear, of interactions within a layer, and of "
        "interactions across layers; in full also of all heads at two densities.",
        differs="Estimated from the values alone, without a decoder, with intervals over masks. "
        "Beside them what rescaling the kept heads makes of heads that only add up, and what "
        "chance would put within layers. SmolLM2 has 9 heads a layer, the paper's Llama 32.",
        minutes=(5, 40),
        model=True,
        tasks=("ioi", "pronoun", "capital"),
    ),
    PaperFigure(
        name="circuit-curves",
        paper=f"{MIB}, and {EAP_IG}",
        title="How faithful circuits of every size are",
        shows="Faithfulness on prompts that were not searched against the share of the heads, and "
        "both areas of the MIB benchmark, from signed and from absolute rankings.",
        differs="Heads of SmolLM2 in place of edges of GPT-2; intervals over prompts, paired "
        "between methods. Both areas are given for both rankings: the paper takes one area from "
        "each. Methods cost from one gradient to some hundred masks. References are compared by "
        "faithfulness, not by KL divergence.",
        minutes=(6, 40),
        model=True,
        tasks=("ioi", "capital", "hypernymy"),
    ),
    PaperFigure(
        name="ioi-heads",
        paper=f"{IOI}, Figures 3b and 15",
        title="Which heads write the answer, and which step in when those are gone",
        shows="Layer × head: the direct effect of each head on the logit difference, the effect of "
        "its ablation, and its direct effect after the three strongest heads are knocked out.",
        differs="SmolLM2: 30 × 9 heads in place of GPT-2's 12 × 12. The strongest are chosen on "
        "other prompts than those that are shown; the mean is over all templates.",
        minutes=(5, 20),
        model=True,
        tasks=("ioi",),
    ),
    PaperFigure(
        name="self-repair",
        paper=f"{HYDRA}, Figures 2 and 7; {REPAIR}, Figure 1",
        title="What is repaired when a layer or a head is taken away, and by what",
        shows="Direct against total effects of whole layers; what later layers restore; the share "
        "of a head's direct effect that other heads, MLPs and the final norm repair.",
        differs="SmolLM2 on capitals and on passages written for this, in place of Chinchilla on "
        "Counterfact and GPT-2 on the Pile. Both estimators of what the norm repairs.",
        minutes=(6, 25),
        model=True,
        tasks=("capital",),
    ),
    PaperFigure(
        name="completeness",
        paper=f"{IOI}, Figure 6",
        title="Does a circuit lose what the whole model loses?",
        shows="The value of the circuit without some of its heads, F(C∖K), against that of the "
        "whole model without them, F(M∖K): a complete circuit lies on the diagonal.",
        differs="Circuits of twelve heads of SmolLM2, searched and of the strongest singles, and a "
        "model with backup heads, of which every K is measured; K has no classes here.",
        minutes=(4, 20),
        model=True,
        tasks=("ioi",),
    ),
    PaperFigure(
        name="or-gate",
        paper=f"{ACDC}, appendix; Hydra's toy",
        title="What a method says of an AND, an OR, a sum and of backups",
        shows="Which heads each method names, on models whose circuits are known.",
        differs="Heads of small models that are built in place of edges; the exact terms beside.",
        minutes=(0.2, 0.5),
    ),
    PaperFigure(
        name="data-lds",
        paper=f"{DATTRI}, MNIST-10; TRAK, Park et al. 2023; datamodels, Ilyas et al. 2022",
        title="What predicts retraining",
        shows="The rank correlation (LDS) of predicted and measured margins of models that are "
        "trained on fresh halves of the data, against the number of models trained to predict.",
        differs="300 digits of 64 pixels; the full size adds 4,900 images of MNIST. Logistic "
        "regression is at its minimum, of which influence is the derivative, and is scored by "
        "margins; theirs is 20 epochs of SGD, scored by the loss.",
        minutes=(2, 45),
    ),
    PaperFigure(
        name="context-lds",
        paper=f"{CONTEXT_CITE}, Figures 3 and 4; {SPEX}, Recovery",
        title="Which sentences count, and how many masks say so",
        shows="LDS on fresh masks, what the answer loses without the best sentences, and whether "
        "the needed sentences are named, against the number of masks.",
        differs="Twelve sentences made up here, of which one or two are needed by construction, "
        "and SmolLM2; a context counts where it is right, and wrong without a needed one.",
        minutes=(5, 40),
        model=True,
    ),
    PaperFigure(
        name="length",
        paper=f"{SPEX}, faithfulness by length",
        title="Words of a review, predicted by its length",
        shows="R² on masks of words that no decoder saw, by the number of words of the review.",
        differs="The value is SmolLM2's logit difference of positive and negative after the "
        "review, from hundreds of masks; theirs is a classifier's score from 16,128 masks and "
        "more, with which every mask of 8 to 13 words is seen; here three fifths at most.",
        minutes=(5, 90),
        model=True,
    ),
)

FIGURES = {figure.name: figure for figure in _FIGURES}
"""{name in the shell: the figure}."""
