"""The tables of `benchmarks.control`: strength, leak, balance, steps, what each step takes, doubt, grey, light."""

from benchmarks.table import Column, Table, columns

COMMAND = "python -m benchmarks.control --data DIR --update"
_SHOWN = (0.0, 0.4, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5)

STRENGTH = Table(
    "Strength of removal",
    "control",
    columns("modality, kind, images, best=best:1, rank up to it=rank:3")
    + tuple(Column(f"dB at {s}", f"db_at_{s}", 2) for s in _SHOWN),
    COMMAND,
    "Mean PSNR to the clean image, of single degradations (`ems.py`). *Rank*: Spearman's, of strength and PSNR.",
    part="strength",
)
LEAK = Table(
    "Does one strength change the other image?",
    "control",
    columns("restored=modality, images, largest change in levels=largest_change_levels"),
    COMMAND,
    part="leak",
)
BALANCE = Table(
    "Balance",
    "control",
    columns(
        "balance, images, SSIM to visible=ssim_to_visible:3, lowest=lowest_to_visible:3, SSIM to "
        "infrared=ssim_to_infrared:3, lowest=lowest_to_infrared:3, odd pairs=odd"
    ),
    COMMAND,
    "Of the fused luma to both restored ones, of whole images. *Steady*: pairs on which the one falls and "
    "the other rises.",
    part="balance",
)
STEPS = Table(
    "Steps",
    "control",
    columns(
        "steps, images, infrared dB=infrared_gain_db:2, visible dB=visible_gain_db:2, processor ms of the "
        "steps=steps_cpu_ms:0, spread in levels=spread_levels:2"
    ),
    COMMAND,
    "PSNR gained over all kinds. Time is that of the step graph, processor time. *Spread*: over start noises.",
    part="steps",
)
TAKEN = Table(
    "What each step takes of what it meets",
    "control",
    columns("modality, kind, step, images, share=share_of_what_it_met:1%, cosine=cosine:2"),
    COMMAND,
    "Of what is left of the true residual before the step: the projection of its change onto it.",
    part="taken",
)
DOUBT = Table(
    "Doubt",
    "control",
    columns(
        "modality, kind, images, rank=rank:2, inside=inside:1%, worst tenth=share:0%, spread=spread:2, "
        "estimate dB=estimate_db:2, mean of 8 samples dB=mean_db:2, one sample dB=one_db:2"
    ),
    COMMAND,
    "Of the uncertainty and the absolute error of the luma. *Rank*: Spearman's, picture by picture. *Inside*: pixels "
    "whose error is no larger, 90 % by its meaning. *Worst tenth*: of the tenth with most uncertainty, how much is in "
    "the tenth with the largest error; 10 % is chance. *Spread*: over 8 seeds there, over what it stands for.",
    part="doubt",
)
GREY = Table(
    "Visible images of a monochrome camera",
    "control",
    columns("kind, images, in colour dB=color_db:2, grey dB=grey_db:2"),
    COMMAND,
    "PSNR gained by the restored visible image, by day; of clean images the PSNR itself.",
    part="grey",
)
LIGHT = Table(
    "Light at night",
    "control",
    columns(
        "light=light:2, images, visible levels=visible_levels:0, fused levels=fused_levels:0, brightened "
        "dB=noisy_db:2, restored dB=restored_db:2"
    ),
    COMMAND,
    "Of real nights with noise of 4 grey levels: the mean luma of the restored visible and of the fused image; PSNR to "
    "the same nights, brightened alike, without that noise.",
    part="light",
)
CONTROL = (STRENGTH, LEAK, BALANCE, STEPS, TAKEN, DOUBT, GREY, LIGHT)
