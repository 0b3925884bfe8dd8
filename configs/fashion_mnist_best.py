"""A small residual network on Fashion-MNIST (60,000 + 10,000 grey images of 28×28), made for two
CPU cores.

    python launch.py --config=configs/fashion_mnist_best.py --config.data.name=idx
    --config.data.dir=DIR

DIR holds the published IDX files. One basic block at 14×14 with 64 features, one at 7×7 with 128
and two at 4×4 with 256, after a 3×3 stem of 32 and a max pool; Nesterov momentum, cosine to
nothing, flips, shifts by up to two pixels, label smoothing.

Unlike the default, no residual branch starts at zero: with four blocks and few epochs that costs
more than it brings. Chosen in runs of 5 epochs on `train[:90%]` (weight decay 2e-3), scored on
`train[90%:]`: 0.9287 with it, 0.9203 without. An earlier form, with branches that start at zero,
was chosen with a look at test scores as well, and had 0.9404.

Expected: 0.9433 ± 0.0028 test top-1 (seeds 0, 1 and 2); 0.9455 ± 0.0016 where the answers to an
image and to its mirror image are averaged (--mode=evaluate --mirror). Cost: 20 × 60,000 images,
about 34 minutes on two CPU cores.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 128
    config.num_epochs = 20
    config.model.name = "resnet18"
    config.model.stage_sizes = (1, 1, 2)
    config.model.stem = "small"
    config.model.stem_width = 32
    config.model.stem_pool = "max"
    config.model.zero_init = False
    config.data.name = "fashion_mnist"
    config.data.flip = True
    config.data.pad_and_crop = 2
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.schedule.name = "cosine"
    config.schedule.base_lr = 0.2
    config.schedule.base_batch_size = 256
    config.schedule.warmup_epochs = 0.5
    config.loss.label_smoothing = 0.1
    return config
