"""tf.data with the fused decode_and_crop_jpeg, as the TensorFlow references have it.

A process that needs TensorFlow and nothing of this project; see `harness.Worker`. The argument is
a file with the paths; a request {"images": n} is answered with the seconds that they took, by the
clock and of the processors. Threads are TensorFlow's own choice, as its users have them.
"""

import json
import os
import pathlib
import sys
import time

os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3")

import tensorflow as tf

SIZE, BATCH = 224, 64
CROP = {"min_object_covered": 0.0, "aspect_ratio_range": (3 / 4, 4 / 3), "max_attempts": 10}
CROP |= {"area_range": (0.08, 1.0), "use_image_if_no_bounding_boxes": True}


def example(path):
    encoded = tf.io.read_file(path)
    shape, boxes = tf.image.extract_jpeg_shape(encoded), tf.zeros((1, 0, 4))
    begin, size, _ = tf.image.sample_distorted_bounding_box(shape, boxes, **CROP)
    window = tf.stack([begin[0], begin[1], size[0], size[1]])
    image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
    image = tf.image.resize(image, (SIZE, SIZE), method="bilinear")
    return tf.cast(tf.image.random_flip_left_right(image), tf.uint8)


def main():
    paths = pathlib.Path(sys.argv[1]).read_text().split("\n")
    files = tf.data.Dataset.from_tensor_slices(paths).repeat()
    print(json.dumps({"tensorflow": tf.__version__}), flush=True)
    for line in sys.stdin:
        images = files.take(json.loads(line)["images"]).map(example, tf.data.AUTOTUNE)
        began, worked = time.perf_counter(), time.process_time()
        for _ in images.batch(BATCH).prefetch(tf.data.AUTOTUNE):
            pass
        times = {"seconds": time.perf_counter() - began, "work": time.process_time() - worked}
        print(json.dumps(times), flush=True)


main()
