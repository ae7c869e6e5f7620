"""ATC's flags: names, values and conflicts, checked before ATC is started."""

import re

from sonic_ms.ascend.facts import find_chip, read
from sonic_ms.errors import UsageError

SPARSE_FAMILIES = ("310B", "910B")  # atlasatcparam_16_0061
PATHS = ("model", "output", "weight", "keep_dtype", "modify_mixlist", "insert_op_conf", "op_precision_mode")


def flag_problems(flags, cann=None):
    """What ATC would refuse or ignore. flags: {name: value} as strings, without the dashes -> list of sentences."""
    table = read("atc_flags")
    problems = [f"--{name} is not a flag of ATC" for name in flags if name not in table["flags"]]
    for name, values in table["values"].items():
        if name in flags and flags[name] not in values:
            problems.append(f"--{name}={flags[name]}: expected one of {', '.join(values)}")
    for group in table["exclusive"]:
        given = [name for name in group if name in flags]
        if len(given) > 1:
            problems.append(f"--{' and --'.join(given)} exclude each other")
    for name in PATHS:  # Chinese characters are allowed as well
        if re.search(r"[^\w./\u4e00-\u9fff-]", flags.get(name, ""), re.ASCII):
            problems.append(f"--{name}={flags[name]}: ATC takes letters, digits and _ - . in paths; move the bundle")
    return problems + _model_problems(flags) + _precision_problems(flags, table) + _chip_problems(flags, table, cann)


def _model_problems(flags):
    model, framework, problems = flags.get("model", ""), flags.get("framework"), []
    if model.endswith(".mindir"):
        problems.append(f"--model={model}: ATC never reads MINDIR; give it the ONNX, or MINDIR to converter_lite")
    elif framework == "5" and model and not model.endswith(".onnx"):
        problems.append(f"--model={model}: --framework=5 reads ONNX")
    if framework != "0" and "weight" in flags:
        problems.append("--weight belongs to --framework=0 (Caffe)")
    if flags.get("output", "").endswith(".om"):
        problems.append(f"--output={flags['output']}: without the suffix .om, ATC appends it")
    gears = [name for name in ("dynamic_batch_size", "dynamic_image_size", "dynamic_dims") if name in flags]
    if "-1" in flags.get("input_shape", "") and not gears:
        problems.append("--input_shape with -1 needs gears: dynamic_batch_size, dynamic_image_size or dynamic_dims")
    if "dynamic_dims" in flags and (flags.get("input_format") != "ND" or "input_shape" not in flags):
        problems.append("--dynamic_dims needs --input_format=ND and --input_shape")
    for name in gears:
        count = len(
            flags[name].replace(",", ";").split(";") if name == "dynamic_batch_size" else flags[name].split(";")
        )
        if not 2 <= count <= 100:
            problems.append(f"--{name}={flags[name]}: {count} gears, expected 2 to 100")
    return problems


def _precision_problems(flags, table):
    mode, problems = flags.get("precision_mode") or flags.get("precision_mode_v2"), []
    if "modify_mixlist" in flags and mode not in table["mixed_modes"]:
        problems.append(f"--modify_mixlist needs a mixed precision mode ({', '.join(table['mixed_modes'])})")
    if "keep_dtype" in flags and (mode is None or mode in table["origin_modes"]):
        problems.append(f"--keep_dtype has no effect with precision mode {mode}; it needs one that lowers precision")
    if "op_precision_mode" in flags and {"op_select_implmode", "optypelist_for_implmode"} & set(flags):
        problems.append("--op_precision_mode overrides --op_select_implmode and --optypelist_for_implmode")
    return problems


def _chip_problems(flags, table, cann):
    if "soc_version" not in flags:
        return ["--soc_version is missing"]
    try:
        chip = find_chip(flags["soc_version"], cann)
    except UsageError as error:
        return [str(error)]
    mode, problems = flags.get("precision_mode") or flags.get("precision_mode_v2"), []
    if mode in table["bf16_modes"] and not chip.bf16:
        problems.append(f"precision mode {mode}: {chip.soc} has no bfloat16")
    if mode in table["hif8_modes"]:
        problems.append(f"precision mode {mode} is for Ascend950 only, not {chip.soc}")
    ranged = "~" in flags.get("input_shape", "") or "input_shape_range" in flags
    dynamic = ranged or any(name.startswith("dynamic_") for name in flags)
    if chip.family == "310" and dynamic:
        problems.append(f"{chip.soc} takes static shapes only")
    if chip.family == "310B" and ranged:
        problems.append(f"{chip.soc} takes no shape ranges; use gears")
    if "allow_hf32" in flags and chip.family != "910B":
        problems.append(f"--allow_hf32 is for Atlas A2 and newer, not {chip.soc}")
    if flags.get("sparsity") == "1" and chip.family not in SPARSE_FAMILIES:
        problems.append(f"--sparsity=1 is not for {chip.soc}; Atlas A2, A3 and 200I A2 compute 4:2 sparse weights")
    return problems
