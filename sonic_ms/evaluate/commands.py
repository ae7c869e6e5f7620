"""`sonic-ms evaluate`."""


def evaluate_arguments(parser):
    parser.add_argument("video", help="the mp4 to measure")
    parser.add_argument("--audio", required=True, help="the speech it was made from")
    parser.add_argument("--source", required=True, help="the photo it was made from")
    parser.add_argument("--phonemes", help='JSON list of {"ipa", "start", "end"}, seconds; "" is silence')


def evaluate(args):
    from sonic_ms.evaluate import evaluate, format_table

    figures = evaluate(args.video, args.audio, args.source, args.phonemes)
    print(format_table(figures))
    return figures
