"""Weight-Ensembling MoE: an encoder that merges the MLPs of its blocks anew for every image.

Everything but the MLPs is merged once, by task arithmetic. A block's MLP keeps the base's weights θ_0 and K task vectors τ_k, and a small
router looks at what comes into it and says how much of each this image gets: θ(x) = θ_0 + Σ_k w_k(x) τ_k. Only the routers are trained,
on unlabelled images. The result is no set of plain weights, so it has a checkpoint of its own kind. Sources: Tang et al., ICML 2024
(arXiv:2402.00433); Shen et al., 2024 (E-WEMoE, arXiv:2410.21804), with pruned task vectors and one router for all blocks.
"""
