"""Wide ResNet-28-10 on CIFAR-10 or CIFAR-100 as Zagoruyko and Komodakis 2016 trained it; 16-8 too.

    python launch.py --config=configs/cifar/wide_resnet28_10.py --config.data.dir=DIR

DIR as in resnet164_v2.py. Nesterov momentum, weight decay 5e-4, the rate times 0.2 after 60, 120
and 160 epochs. The paper fills the border of a shifted image with its reflection, here it is black.
--config.model.name=wide_resnet16_8 trains the smaller net; the paper's 28-10 with dropout inside of
blocks is not among the networks here.

Expected: 96.00 test top-1 on CIFAR-10, 80.75 on CIFAR-100; 16-8: 95.73 and 79.57 (the paper's table
5, medians of five runs, as errors of 4.00, 19.25, 4.27 and 20.43 %). Not run here: the data could
not be had. Cost: 200 × 50,000 images of 32 pixels, × 5.2 billion multiply-adds forward (16-8: 1.5).
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 128
    config.num_epochs = 200
    config.model.name = "wide_resnet28_10"
    config.model.zero_init = False
    config.data.name = "cifar"
    config.data.flip = True
    config.data.pad_and_crop = 4
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.optimizer.decay_norm_and_bias = True
    config.schedule.name = "step"
    config.schedule.base_lr = 0.1
    config.schedule.base_batch_size = None
    config.schedule.boundaries = (60.0, 120.0, 160.0)
    config.schedule.factor = 0.2
    return config
