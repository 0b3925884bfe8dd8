"""ResNeXt-29 8×64d on CIFAR-10 or CIFAR-100 as Xie et al. 2017 trained it.

    python launch.py --config=configs/cifar/resnext29_8x64d.py --config.data.dir=DIR

DIR as in resnet164_v2.py. Three stages of three bottleneck blocks with eight groups of 64 channels;
300 epochs, the rate divided by ten after 150 and 225, weight decay 5e-4.
--config.model.name=cifar_resnext29_16x64d trains the net of twice the size.

Expected: 96.35 test top-1 on CIFAR-10, 82.23 on CIFAR-100; 16×64d: 96.42 and 82.69 (the paper's
table 7, means of ten runs, as errors of 3.65, 17.77, 3.58 and 17.31 %). Not run here: the data
could not be had. Cost: 300 × 50,000 images of 32 pixels, × 5.4 billion multiply-adds forward.
"""

from resnet_jax.config import defaults


def get_config():
    config = defaults()
    config.batch_size = 128
    config.num_epochs = 300
    config.model.name = "cifar_resnext29_8x64d"
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
    config.schedule.boundaries = (150.0, 225.0)
    config.schedule.factor = 0.1
    return config
