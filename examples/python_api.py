"""The Python interface: convert, train, evaluate, predict, and a plain Estimator.

    python examples/python_api.py PICTURES FOLDER

PICTURES is a folder with one subfolder per class, such as that of the quick start,
``runs/quickstart.data/mono_poly``.  All results are written to FOLDER.  Many editors
run the cells that begin with ``# %%`` as a notebook; replace ``sys.argv[1:]`` by the
names of the two folders there.
"""

# %% Configure a tiny network and 40 steps, which take less than a minute on a laptop.
import sys

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

# %% Use the input and the model function in a plain Estimator of TensorFlow.
dataset = alexnet_estimator.open_dataset(f"{folder}/data")
model_fn = alexnet_estimator.build_model_fn(
    run.config,
    dataset.num_classes,
    run.runtime,
    alexnet_estimator.Training(run.learning_rate_plan),
)
settings = tf.estimator.RunConfig(f"{folder}/plain", tf_random_seed=config.train.seed)
estimator = tf.estimator.Estimator(model_fn, config=settings)
data, reader = run.config.data, run.reader
estimator.train(
    lambda: alexnet_estimator.train_batches(dataset, data, reader, start_step=0),
    max_steps=run.total_steps,
)
sums = estimator.evaluate(lambda: alexnet_estimator.eval_batches(dataset, data, reader))
loss = sums["loss_sum"] / sums["num_images"]
print(f"the plain Estimator's loss is {loss:.3f} on {sums['num_images']} images")
