"""Audio side of sonic-edge: log-mel frames in, what a mouth does out, 25 rows a second.

The ear is the first part of Whisper-tiny.en (Radford et al. 2022): its convolutions and first two layers, as OpenAI
trained them. On it sits one convolution over five frames, which is all that this project trains: more capacity learns
the grammar of the few real speakers there are instead of their mouths (docs/measured/lips.md).
"""

from mindspore import Tensor, nn, ops

from sonic_ms.edge.heard import HEARD
from sonic_ms.nn.whisper import WhisperLayers


class AudioEncoder(nn.Cell):
    """Log-mel (b, 80, 4t) -> what is heard (b, len(HEARD), t); see heard.py."""

    def __init__(self, config):
        super().__init__()
        self.taps, self.rows = config.taps, len(HEARD)
        self.whisper = WhisperLayers(config.whisper)
        self.head = nn.Conv2d(config.whisper.d_model, self.rows, (1, config.taps), pad_mode="valid", has_bias=True)

    def construct(self, mel):
        return self.articulate(self.listen(mel))

    def listen(self, mel):
        """Log-mel (b, 80, 4t) -> features (b, t, c): Whisper's states, averaged in pairs."""
        x = self.whisper(mel)[-1]
        b, positions, c = x.shape
        first, second = ops.split(ops.reshape(x, (b, positions // 2, 2 * c)), c, 2)
        return 0.5 * (first + second)

    def articulate(self, features):
        """Features (b, t, c) -> rows (b, len(HEARD), t). The first and the last frame stand for those beyond."""
        b, t, c = features.shape
        edge = self.taps // 2
        x = ops.concat((*[features[:, :1]] * edge, features, *[features[:, t - 1 :]] * edge), 1)
        x = ops.reshape(ops.transpose(x, (0, 2, 1)), (b, c, 1, t + 2 * edge))
        return ops.reshape(self.head(x), (b, self.rows, t))


def first_positions(encoder, shorter):
    """`shorter`, an AudioEncoder of fewer positions, with the weights of `encoder`."""
    weights = {parameter.name: parameter.asnumpy() for parameter in encoder.get_parameters()}
    for parameter in shorter.get_parameters():
        parameter.set_data(Tensor(weights[parameter.name][: parameter.shape[0]]))
    return shorter
