"""`keras.Model.fit` from any step of any epoch, as one training."""

import keras


class Course(keras.callbacks.CallbackList):
    """Callbacks that see one training, though `fit` is called twice.

    A run that goes on in the middle of an epoch has first to finish that
    one, which is shorter than the others. Callbacks are told the beginning
    and the end of the whole, and the true numbers of epochs and steps.

    Args:
        callbacks: List of `keras.callbacks.Callback`.
        model: `keras.Model`.
        epochs: Integer, epochs of the whole run.
        steps: Integer, steps of a whole epoch.
        verbose: As for `keras.Model.fit`.
    """

    def __init__(self, callbacks, model, epochs, steps, verbose=0):
        super().__init__(
            callbacks,
            add_history=True,
            add_progbar=verbose != 0,
            model=model,
            verbose=verbose,
            epochs=epochs,
            steps=steps,
        )
        # The step that `fit` takes for its first.
        self.first = 0
        self.begun = False

    def on_train_begin(self, logs=None):
        if not self.begun:
            self.begun = True
            super().on_train_begin(logs)

    def on_train_end(self, logs=None):
        """Nothing yet: `fit` may be called again; `finish` ends it."""

    def finish(self):
        """Tells the callbacks that the training is over."""
        super().on_train_end()

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(self.first + batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(self.first + batch, logs)


def fit(model, feed, checked, *, epochs, steps, begun, callbacks, verbose=0):
    """Trains a compiled model from a step of an epoch to the last epoch.

    Args:
        model: Compiled `keras.Model`.
        feed: Function of (epoch, step), both from 0, that gives the endless
            data set of batches from there on.
        checked: Data set of an epoch's validation, or None.
        epochs: Integer, epochs of the whole run.
        steps: Integer, steps of a whole epoch.
        begun: Pair (epoch, step): what is done already.
        callbacks: List of `keras.callbacks.Callback`.
        verbose: As for `keras.Model.fit`.
    """
    epoch, step = begun
    course = Course(callbacks, model, epochs, steps, verbose)
    ends = [epochs] if step == 0 else [epoch + 1, epochs]
    for end in ends:
        if epoch == end:
            break
        course.first = step
        model.fit(
            feed(epoch, step),
            initial_epoch=epoch,
            epochs=end,
            steps_per_epoch=steps - step,
            validation_data=checked,
            callbacks=course,
            verbose=0,
            shuffle=False,  # the clips come shuffled
        )
        if model.stop_training:
            break
        epoch, step = end, 0
    course.finish()
