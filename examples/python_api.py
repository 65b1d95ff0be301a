"""The Python interface: convert, train, evaluate and predict, and single parts.

    python examples/python_api.py PICTURES FOLDER

PICTURES is a folder with one subfolder per class, such as that of the quick start,
``runs/quickstart.data/mono_poly``.  All results are written to FOLDER.  Many editors
run the cells that begin with ``# %%`` as a notebook; replace ``sys.argv[1:]`` by the
names of the two folders there.
"""

# %% Configure a tiny network and 40 steps, which take less than a minute on a laptop.
import sys

import numpy as np

import alexnet_estimator
from alexnet_estimator import tf

pictures, folder = sys.argv[1:]
config = alexnet_estimator.load_config_file("configs/tiny.py")
config.train.steps = 40
config.train.eval_every_epochs = 0.0  # Evaluate only at the end.

# %% Convert the pictures to TFRecords.
dataset = alexnet_estimator.convert(pictures, f"{folder}/data", config.convert)
print(dataset.class_names, {name: s.num_images for name, s in dataset.splits.items()})

# %% Train.  If this cell runs again, training resumes from the last checkpoint.
config.data.path = dataset.directory
run = alexnet_estimator.open_run(config, f"{folder}/run")
result = alexnet_estimator.train(run)
print(f"accuracy {result['top_1_accuracy']:.3f}, loss {result['loss']:.3f}")

# %% Evaluate the newest checkpoint again.
assert alexnet_estimator.evaluate(run) == result

# %% Predict: write a file of rows, or get the probabilities of each picture.
classifier = alexnet_estimator.open_classifier(run.model_dir)
summary = alexnet_estimator.predict(classifier, [pictures], f"{folder}/answers.csv")
print(f"{summary.num_images} rows are in {folder}/answers.csv")

found = alexnet_estimator.find_sources([pictures])[:3]
for path, probabilities in alexnet_estimator.classify(classifier, found, reject=print):
    print(path, dict(zip(classifier.class_names, probabilities.round(3))))

# %% Use only the input pipeline and the network in another graph.
with tf.Graph().as_default(), tf.Session() as session:
    reader = alexnet_estimator.Reader(rank=0, num_ranks=1, batch_size=8)
    batches = alexnet_estimator.train_batches(dataset, config.data, reader, 0)
    iterator = tf.data.make_initializable_iterator(batches)
    features, labels = iterator.get_next()
    images = alexnet_estimator.normalise(features, dataset.mean_rgb, config.data)
    logits = alexnet_estimator.alexnet(images, dataset.num_classes, config.model)
    saver = tf.train.Saver(tf.trainable_variables())

    session.run(iterator.initializer)
    saver.restore(session, tf.train.latest_checkpoint(run.model_dir))
    answers, truth = session.run([logits, labels])
    share = np.mean(answers.argmax(axis=1) == truth)
    print(f"accuracy on a training batch: {share:.3f}")
