"""How an amortised posterior is trained: `posterior.py`, `pendulum.py`, `tools/sbi_report.py`."""

import keras


def fit(model, theta, x, args, patience=20):
    """Trains a posterior on simulations, and returns the history; a tenth of them is held out.

    The learning rate falls to zero as a cosine, and the weights are those of the best epoch.

    Args:
      model: conditional `FlowModel` of the parameters given data.
      theta: parameters `[n, size]`.
      x: data `[n, ...]`, as the model takes its context.
      args: with `epochs`, `batch_size` and `learning_rate`.
      patience: epochs without a better one, after which it ends.
    """
    held_out = len(theta) // 10
    steps = args.epochs * -(-(len(theta) - held_out) // args.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(args.learning_rate, steps)
    model.compile(keras.optimizers.Adam(rate, clipnorm=5.0))
    theta = theta.astype("float32")
    return model.fit(
        theta[held_out:],
        x[held_out:],
        validation_data=(theta[:held_out], x[:held_out]),
        batch_size=args.batch_size,
        epochs=args.epochs,
        verbose=0,
        callbacks=[keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True)],
    ).history
