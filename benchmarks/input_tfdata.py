"""tf.data with the fused decode_and_crop_jpeg, as the TensorFlow references have it; run by
`input_pipeline.py`.

Reads a list of files from the path in argv[1], uses argv[2] threads, and for each number of images
on standard input prints the seconds that they took, by the clock and of the processors. It needs
TensorFlow and nothing of this project.
"""

import os
import pathlib
import sys
import time

os.environ.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3")

import tensorflow as tf

SIZE = 224


def example(path):
    encoded = tf.io.read_file(path)
    box = tf.zeros((1, 0, 4))
    start, extent, _ = tf.image.sample_distorted_bounding_box(
        tf.image.extract_jpeg_shape(encoded),
        box,
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.stack([start[0], start[1], extent[0], extent[1]])
    image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
    image = tf.image.resize(image, (SIZE, SIZE), method="bilinear")
    return tf.cast(tf.image.random_flip_left_right(image), tf.uint8)


def main():
    paths, threads = pathlib.Path(sys.argv[1]).read_text().split("\n"), int(sys.argv[2])
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    for line in sys.stdin:
        images = int(line)
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        batches = (
            tf.data.Dataset.from_tensor_slices(paths).repeat().take(images).with_options(options)
        )
        batches = batches.map(example, num_parallel_calls=threads).batch(64).prefetch(2)
        began, worked = time.perf_counter(), time.process_time()
        for _ in batches:
            pass
        print(time.perf_counter() - began, time.process_time() - worked, flush=True)


main()
